"""When a server is ended, when a version loses its workers, and when neither must happen."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from serving import supervise
from serving.health import Health
from serving.management import Version
from serving.say import Log, ServeError
from serving.supervise import Supervisor


class Management:
    """Remembers what it is asked to do."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def scale(self, version: Version, workers: int) -> None:
        self.calls.append(f"scale {version} to {workers}")

    def start_one(self, version: Version) -> None:
        self.calls.append(f"start a worker of {version}")


def version(ready: int, workers: int = 2, queued: int = 0, name: str = "1.0.0", live: bool = True) -> Version:
    return Version("petclf", name, "x.mar", live, 2, {pid: pid < ready for pid in range(workers)}, queued)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    for name, seconds in {"LOOK_SECONDS": 0.0, "STUCK_SECONDS": 0.5, "SILENT_SECONDS": 0.5, "DEAD_SECONDS": 1.2}.items():
        monkeypatch.setattr(supervise, name, seconds)
    watched = Supervisor.__new__(Supervisor)
    watched.stopping, watched.given_up, watched.log = None, set(), Log()
    watched.process = SimpleNamespace(poll=lambda: None)  # type: ignore[assignment]
    watched.management = Management()  # type: ignore[assignment]
    return watched


def stay(supervisor: Supervisor, health: Health, seconds: float = 1.6) -> tuple[float, list[str]]:
    """Look at the same state for some seconds; returns how long the server was kept, and what was done."""
    began = time.monotonic()

    def look() -> Health:
        if time.monotonic() - began > seconds:
            supervisor.stopping = 15
        return health

    supervisor.look = look  # type: ignore[method-assign]
    try:
        supervisor.stay()
    except ServeError:
        pass
    else:
        assert time.monotonic() - began > seconds
    calls: Any = supervisor.management
    return time.monotonic() - began, calls.calls


@pytest.mark.parametrize(
    "versions",
    [
        [version(2)],
        [version(1)],
        [version(0, workers=0)],
        [],
        [version(2), version(0, name="2.0.0", live=False, workers=0)],
    ],
    ids=["whole", "one worker missing", "scaled to none", "no model at all", "another version without workers"],
)
def test_a_server_that_can_answer_or_need_not_is_kept(supervisor: Supervisor, versions: list[Version]) -> None:
    assert stay(supervisor, Health("serving", versions))[1] == []


@pytest.mark.parametrize(
    ("health", "least", "most"),
    [
        (Health("serving", [version(0, queued=3)]), 0.5, 1.1),
        (Health("serving", [version(0)]), 1.2, 1.9),
        (Health("serving", reached=False), 0.5, 1.1),
    ],
    ids=["somebody waits", "nobody waits", "Java says nothing"],
)
def test_a_server_that_cannot_answer_is_ended_sooner_if_somebody_waits(
    supervisor: Supervisor, health: Health, least: float, most: float
) -> None:
    kept, calls = stay(supervisor, health)
    assert calls == []
    assert least < kept < most


def test_a_candidate_that_cannot_start_loses_its_workers_and_the_live_version_goes_on(supervisor: Supervisor) -> None:
    candidate = version(0, name="2.0.0", live=False)
    _, calls = stay(supervisor, Health("serving", [version(2), candidate]))
    assert set(calls) == {"scale petclf 2.0.0 to 0"}


def test_who_waits_for_a_version_without_workers_is_answered_by_one_that_is_started(supervisor: Supervisor) -> None:
    _, calls = stay(supervisor, Health("serving", [version(0, workers=0, queued=5)]), 0.3)
    assert set(calls) == {"start a worker of petclf 1.0.0"}
