"""The model store: archives that never change, live.json, and a history that survives whatever happens."""

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from operate.client import UsageError
from operate.errors import NotDoneError
from operate.replica import Keys, find_replicas
from operate.store import HISTORY, Store, Stored
from serving.live import FILE, Live, Release, read_live
from serving.say import ServeError
from serving.store import find_archives
from tests.archives import archive_called


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    return {version: archive_called(version, folder) for version in ("1.9.0", "1.10.0")}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "petclf")


@pytest.fixture
def both(store: Store, archives: dict[str, Path]) -> dict[str, Stored]:
    return {version: store.add(path)[0] for version, path in archives.items()}


def versions(store: Store, previous: bool = False) -> list[str]:
    return [archive.version for archive in find_archives(store.path, previous)]


def test_an_archive_gets_its_versions_name_and_is_copied_once(store: Store, archives: dict[str, Path]) -> None:
    first, new = store.add(archives["1.9.0"])
    assert (first.archive.path, new) == (store.path / "petclf-1.9.0.mar", True)
    assert first.archive.path.read_bytes() == archives["1.9.0"].read_bytes()
    assert store.add(archives["1.9.0"]) == (store.find("1.9.0"), False)


def test_where_nobody_has_promoted_anything_a_server_begins_with_what_came_last(store: Store, both: dict[str, Stored]) -> None:
    for version, stored in reversed(both.items()):
        stored.archive.path.touch()
        assert versions(store) == versions(store, previous=True) == [version]
    for stored in both.values():
        os.utime(stored.archive.path, (1, 1))
    assert versions(store) == ["1.10.0"]  # at the same time: the newer version


def test_what_is_live_decides_and_not_what_is_newest(store: Store, both: dict[str, Stored]) -> None:
    store.write_live(Live(both["1.9.0"].release, None))
    assert (versions(store), versions(store, previous=True)) == (["1.9.0"], ["1.9.0"])
    store.write_live(Live(both["1.9.0"].release, both["1.10.0"].release))
    assert (versions(store), versions(store, previous=True)) == (["1.9.0"], ["1.9.0", "1.10.0"])


def test_a_live_archive_that_is_gone_or_changed_is_told_and_not_served(store: Store, both: dict[str, Stored]) -> None:
    store.write_live(Live(both["1.9.0"].release, None))
    path = store.path / "petclf-1.9.0.mar"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    with pytest.raises(
        ServeError, match=r"petclf-1.9.0.mar is not what was promoted: its sha256 is .*; restore it, or remove live.json"
    ):
        find_archives(store.path)
    path.unlink()
    with pytest.raises(ServeError, match=r"live.json names petclf-1.9.0.mar, which is not in the store; put it back"):
        find_archives(store.path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 2, "models": {}}', '{"format": 1, "models": {"petclf": {"live": {}, "previous": null, "decision": "promote"}}}',
     '{"format": 1, "models": {"petclf": {"live": {"version": "1", "archive": "../x.mar", "sha256": "", "since": ""}, "previous": null, "decision": "promote"}}}'],
)  # fmt: skip
def test_a_broken_live_file_is_told_and_never_guessed_around(store: Store, both: dict[str, Stored], content: str) -> None:
    assert both
    (store.path / FILE).write_text(content)
    with pytest.raises(ServeError, match=r"cannot be read: .*; restore it, or remove it"):
        find_archives(store.path)
    with pytest.raises(UsageError, match="cannot be read"):
        store.live()


def test_what_is_live_is_kept_for_each_model(store: Store, both: dict[str, Stored]) -> None:
    other = Store(store.path, "lions")
    store.write_live(Live(both["1.9.0"].release, None))
    other.write_live(Live(Release("3.0.0", "lions-3.0.0.mar", "f" * 64, "then"), None))
    assert sorted(read_live(store.path)) == ["lions", "petclf"]
    assert store.live() == read_live(store.path)["petclf"]


def test_a_release_whose_bytes_changed_is_no_place_to_roll_back_to(store: Store, both: dict[str, Stored]) -> None:
    release = both["1.9.0"].release
    assert store.verified(release).archive.version == "1.9.0"
    (store.path / release.archive).write_bytes((store.path / "petclf-1.10.0.mar").read_bytes())
    with pytest.raises(NotDoneError, match="is not what was live: its sha256 is"):
        store.verified(release)
    (store.path / release.archive).unlink()
    with pytest.raises(NotDoneError, match="is gone; put it back, sha256"):
        store.verified(release)


def test_the_history_tells_what_was_live_at_a_moment(store: Store, both: dict[str, Stored]) -> None:
    moments = []
    for what, version in (("adopt", "1.9.0"), ("promote", "1.10.0"), ("rollback", "1.9.0")):
        store.tell(what, version, both[version].sha256)
        moments.append(datetime.now(timezone.utc))
        time.sleep(0.002)  # entries have milliseconds
        store.tell("register", "1.11.0", None)
    found = [store.live_at(moment) for moment in moments]
    assert [one and (one["version"], one["sha256"]) for one in found] == [
        (version, both[version].sha256) for version in ("1.9.0", "1.10.0", "1.9.0")
    ]
    assert store.live_at(datetime(2020, 1, 1, tzinfo=timezone.utc)) is None


def test_a_line_that_a_power_failure_cut_off_hides_no_other(store: Store) -> None:
    store.tell("register", "1.0.0", "a")
    with (store.path / HISTORY).open("a") as file:
        file.write('{"time": "20')
    store.tell("register", "1.1.0", "b")
    assert [entry["version"] for entry in store.history()] == ["1.0.0", "1.1.0"]
    assert [json.loads(line)["version"] for line in (store.path / HISTORY).read_text().splitlines() if line.endswith("}")] == [
        "1.0.0",
        "1.1.0",
    ]


def test_two_commands_do_not_change_a_store_at_once(store: Store) -> None:
    with store.locked(), pytest.raises(UsageError, match="another command is changing"), store.locked():
        pass
    with store.locked():
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:8081", "ftp://host", "http://", "http://no.such.name.example:8081"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    with pytest.raises(UsageError, match="--server"):
        find_replicas([address], Keys())


def test_a_name_is_all_machines_that_it_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(2, 1, 6, "", (address, 8081)) for address in ("10.0.0.2", "10.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: known)
    found = find_replicas(["http://petclf.internal:8081", "https://petclf.example:8081,https://petclf.example"], Keys())
    assert [(str(one), one.inference) for one in found] == [
        ("http://10.0.0.1:8081", "http://10.0.0.1:8080"),
        ("http://10.0.0.2:8081", "http://10.0.0.2:8080"),
        ("https://petclf.example:8081", "https://petclf.example"),
    ]
