"""When a server is ended, when a version loses its workers, and when neither must happen."""

import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handler.model_file import Archive, ModelFile
from serving import supervise
from serving.health import Health
from serving.management import Version
from serving.say import Log, ServeError
from serving.supervise import Supervisor


class Management:
    """Remembers what it is asked to do."""

    def __init__(self, *versions: Version) -> None:
        self.calls: list[str] = []
        self.known = list(versions)

    def versions(self) -> list[Version]:
        return self.known

    def scale(self, version: Version, workers: int) -> None:
        self.calls.append(f"scale {version} to {workers}")

    def start_one(self, version: Version) -> None:
        self.calls.append(f"start a worker of {version}")


def version(ready: int, workers: int = 2, queued: int = 0, name: str = "1.0.0", live: bool = True) -> Version:
    return Version("petclf", name, "x.mar", live, 2, {pid: pid < ready for pid in range(workers)}, queued)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Supervisor:
    for name, seconds in {"LOOK_SECONDS": 0.0, "STUCK_SECONDS": 0.5, "SILENT_SECONDS": 0.5, "DEAD_SECONDS": 1.2}.items():
        monkeypatch.setattr(supervise, name, seconds)
    watched = Supervisor.__new__(Supervisor)
    watched.stopping, watched.given_up, watched.log, watched.folder = None, set(), Log(), tmp_path
    watched.phase, watched.store, watched.digests, watched.workers = "serving", tmp_path, {}, 2
    watched.registrar = SimpleNamespace(candidate="")  # type: ignore[assignment]
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


def test_the_servers_health_does_not_depend_on_a_version_that_is_being_registered(supervisor: Supervisor) -> None:
    live, candidate = version(2), Version("lions", "1.0.0", "lions.mar", True, 2, {7: False}, 5)
    supervisor.management = Management(live, candidate)  # type: ignore[assignment]
    supervisor.registrar.candidate = "lions 1.0.0"
    during = supervisor.look()
    supervisor.registrar.candidate = ""
    after = supervisor.look()
    assert (during.state, during.versions) == ("ready", [live])
    assert (after.state, after.versions) == ("down", [live, candidate])


def test_a_version_that_comes_back_with_another_archive_has_its_digest(supervisor: Supervisor, tmp_path: Path) -> None:
    def digest_of(content: bytes) -> str:
        (tmp_path / "x.mar").write_bytes(content)
        supervisor.management = Management(version(2))  # type: ignore[assignment]
        return supervisor.look().digests["petclf 1.0.0"]

    first = digest_of(b"one")
    while_it_is_there = digest_of(b"two")
    supervisor.management = Management()  # type: ignore[assignment]
    gone = supervisor.look().digests
    assert (first, while_it_is_there, gone) == (sha256(b"one").hexdigest(), first, {})
    assert digest_of(b"two") == sha256(b"two").hexdigest()


CANDIDATE = Archive(Path("new.mar"), "petclf", "2.0.0", ModelFile({}, b""))


def test_a_version_is_waited_for_until_all_its_workers_and_its_answer_are_there(supervisor: Supervisor) -> None:
    steps = iter([[], [version(0, 1)], [version(1)], [version(2)], [version(2)]])
    answers = iter(["a known photo is answered with status 503", ""])
    seen: list[list[Version]] = []

    def versions() -> list[Version]:
        seen.append([Version("petclf", "2.0.0", "new.mar", False, 2, one.workers, 0) for one in next(steps)])
        return seen[-1]

    supervisor.management.versions = versions  # type: ignore[assignment,method-assign]
    supervisor.wrong_answer = lambda _: next(answers)  # type: ignore[method-assign]
    assert supervisor.wait_until_ready([CANDIDATE], 2, 30)
    assert len(seen) == 5


def test_a_version_is_not_waited_for_when_a_worker_has_given_its_reason(supervisor: Supervisor, tmp_path: Path) -> None:
    """And an older version's reason, or its traceback, is not taken for this one's."""
    (tmp_path / "failed").write_text("an older version is broken")
    supervisor.log.last_error = "OldError: long ago"
    loading = [Version("petclf", "2.0.0", "new.mar", False, 1, {7: False}, 0)]

    def versions() -> list[Version]:
        if supervisor.pids["petclf 2.0.0"]:
            (tmp_path / "failed").write_text("a known photo is answered wrong")
        return loading

    supervisor.management.versions = versions  # type: ignore[assignment,method-assign]
    with pytest.raises(ServeError) as ended:
        supervisor.wait_until_ready([CANDIDATE], 1, 30)
    assert str(ended.value) == "a worker could not start: a known photo is answered wrong"
    assert supervisor.log.last_words == "none"


def test_a_version_whose_worker_was_replaced_is_not_waited_for_and_others_pids_do_not_count(supervisor: Supervisor) -> None:
    for pids in ({1: False}, {2: False}):
        loading = Version("petclf", "2.0.0", "new.mar", False, 1, pids, 0)
        supervisor.management = Management(loading)  # type: ignore[assignment]
        with pytest.raises(ServeError, match=r"^not ready within 0.2 seconds: 0 of 1 workers are ready$"):
            supervisor.wait_until_ready([CANDIDATE], 1, 0.2)
    pid = iter(range(10, 20))
    supervisor.management.versions = lambda: [Version("petclf", "2.0.0", "new.mar", False, 1, {next(pid): False}, 0)]  # type: ignore[assignment,method-assign]
    with pytest.raises(ServeError, match=r"^a worker ended while it loaded; its last words: none$"):
        supervisor.wait_until_ready([CANDIDATE], 1, 30)
