"""How long a request may have waited is never said too short, and forgotten after a pause."""

import pytest

from handler.backlog import Backlog
from handler.limits import QUEUE


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("handler.backlog.time", clock)
    return clock


def work(backlog: Backlog, clock: Clock, count: int, seconds: float) -> float:
    """Take a batch that takes some seconds; returns how long it may have waited."""
    waited = backlog.longest_wait(count)
    clock.now += seconds
    backlog.answered()
    return waited


def test_what_comes_to_an_idle_worker_has_not_waited(clock: Clock) -> None:
    backlog = Backlog()
    assert work(backlog, clock, 8, 3.0) == 0
    clock.now += 1
    assert work(backlog, clock, 8, 3.0) == 0


def test_what_comes_to_a_busy_worker_may_have_waited_since_it_became_busy(clock: Clock) -> None:
    backlog = Backlog()
    assert [work(backlog, clock, 8, 2.0) for _ in range(4)] == [0, 2, 4, 6]


def test_under_lasting_load_it_has_waited_no_longer_than_the_queue_is_long(clock: Clock) -> None:
    backlog = Backlog()
    waits = [work(backlog, clock, 1, 0.0625) for _ in range(QUEUE * 3)]
    assert waits[:3] == [0, 0.0625, 0.125]
    assert set(waits[QUEUE:]) == {QUEUE * 0.0625}
