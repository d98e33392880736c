"""A model's life on real servers: versions come, are compared, go live, and go, by the tool that operators type."""

import contextlib
import itertools
import json
import shlex
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from handler.model_file import read_archive
from handler.photo_input import decode_photo
from scripts.build_archive import pack
from tests.archives import archive_called, with_file
from tests.documents import commands
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving, start, wait_until
from tests.e2e.nginx import Upstream
from tests.e2e.prometheus import behind, run_gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=95)
CLASSIFIER = "handler/classifier.py"
NEVER_UNSURE = {"unsure_below": 0.0, "unlike_above": 1e9}  # drawings are like no photo

FAULTY = """

import dataclasses
import time as _time
_well = Classifier.predict


def _predict(self, photos):
    asked = Path({switch!r}).read_text() if Path({switch!r}).exists() else {always!r}
    strange = [abs(float(photo.float().mean()) - {golden}) > 0.5 for photo in photos]
    if asked == "errors" and any(strange):
        raise RuntimeError("as the test wants it")
    judgements, seconds = _well(self, photos)
    if asked == "slow":
        _time.sleep(0.2)
        seconds += 0.2
    if asked == "unsure":
        judgements = [dataclasses.replace(one, unsure_because="low_confidence") for one in judgements]
    if asked == "worse":
        judgements = [self.judge(list(one.probabilities.values())[::-1], one.unlike) if odd else one for one, odd in zip(judgements, strange)]
    return judgements, seconds


Classifier.predict = _predict
"""


@dataclass
class Client:
    """Asks a server without a pause, over one connection, and keeps what came back."""

    url: str
    seen: list[tuple[int, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask_on(self) -> None:
        with requests.Session() as session:
            while not self.over.is_set():
                answer = session.post(f"{self.url}/predictions/petclf", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=30)
                self.seen.append((answer.status_code, answer.headers.get("x-petclf-version", "") if answer.ok else answer.text))

    @property
    def versions(self) -> list[str]:
        """The versions that answered, in their order, each once in a row."""
        return [version for version, _ in itertools.groupby(version for _, version in self.seen)]


@contextlib.contextmanager
def clients(*urls: str) -> Iterator[list[Client]]:
    asking = [Client(url) for url in urls]
    threads = [threading.Thread(target=one.ask_on) for one in asking]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        for one in asking:
            one.over.set()
        for thread in threads:
            thread.join()


@dataclass
class Place:
    """Servers of one store, and the tool that changes them."""

    servers: list[Serving]
    store: Path
    live: str
    folder: Path

    def run(self, *arguments: str, wrapper: str = "") -> subprocess.CompletedProcess[str]:
        where = [word for one in self.servers for word in ("--server", f"{one.management},{one.url}")]
        program = ["-c", wrapper] if wrapper else ["-m", "scripts.models"]
        command = [sys.executable, *program, *arguments, *where, "--store", str(self.store)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)

    def done(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout
        return result.stdout

    def refused(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.returncode == 1, (result.stdout, result.stderr)
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("refused: ").strip()

    def loaded(self) -> list[list[tuple[str, bool]]]:
        """The versions on each server, and whether each has a ready worker; the default first."""
        found = []
        for server in self.servers:
            default = requests.get(f"{server.management}/models/petclf", timeout=10).json()[0]["modelVersion"]
            versions = requests.get(f"{server.management}/models/petclf/all", timeout=10).json()
            ready = {one["modelVersion"]: any(w["status"] == "READY" for w in one["workers"]) for one in versions}
            found.append(sorted(ready.items(), key=lambda one: (one[0] != default, one[0])))
        return found

    def live_file(self) -> tuple[str, str | None]:
        models = json.loads((self.store / "live.json").read_text())["models"]["petclf"]
        return models["live"]["version"], models["previous"] and models["previous"]["version"]

    def history(self) -> list[tuple[str, str]]:
        return [(entry["what"], entry["version"]) for entry in json.loads(self.run("history", "--json").stdout)]


def begin(folder: Path, servers: int) -> tuple[Place, Callable[[], None]]:
    first = start(folder, None, None, "--workers", "1")
    released = first.store / "petclf.mar"
    version = read_archive(released).version
    others = []
    for number in range(1, servers):  # the same store: a link, for each server has a folder of its own here
        (folder / str(number)).mkdir()
        (folder / str(number) / "store").symlink_to(first.store)
        others.append(start(folder / str(number), {}, None, "--workers", "1"))
    place = Place([first, *others], first.store, version, folder)

    def end() -> None:
        for server in place.servers:
            server.stop()

    return place, end


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server, which every test leaves as it was."""
    found, end = begin(tmp_path_factory.mktemp("models"), 1)
    yield found
    end()


@pytest.fixture
def clean(place: Place) -> Iterator[Place]:
    assert place.loaded() == [[(place.live, True)]]
    yield place
    for version, _ in place.loaded()[0][1:]:
        place.run("retire", version)
    for path in [*place.store.glob("petclf-*.mar"), *place.store.glob("*.json*"), *place.store.glob("comparisons/*")]:
        path.unlink()


def faulty(folder: Path, version: str, switch: Path, always: str = "") -> Path:
    """An archive whose workers go wrong when the switch says how, or always; the known photo is answered all the same."""
    good = archive_called(version, folder, **NEVER_UNSURE)
    archive = read_archive(good)
    golden = float(decode_photo(archive.model.photo, archive.model.metadata["image_size"]).float().mean())
    code = FAULTY.format(switch=str(switch), golden=golden, always=always).encode()
    return with_file(good, good, CLASSIFIER, lambda source: source + code)


def test_a_version_comes_goes_live_is_rolled_back_and_retired_without_a_lost_request(clean: Place, tmp_path: Path) -> None:
    newer = archive_called("99.1.0", tmp_path)
    with clients(*[clean.servers[0].url] * 8) as asking:
        said = [
            clean.done("register", str(newer), "--workers", "1"),
            clean.done("promote", "99.1.0", "--force", "a test", "--watch", "1"),
            clean.done("rollback", "--why", "because"),
            clean.done("retire", "99.1.0"),
        ]
        time.sleep(0.3)
    assert said == [
        "petclf 99.1.0 is registered on 1 server, each with 1 workers that are ready\n",
        "petclf 99.1.0 answers on 1 server; it is watched for 1 s\n"
        f"petclf 99.1.0 is live on 1 server; {clean.live} stays loaded for a rollback until it is retired\n",
        f"petclf {clean.live} is live again on 1 server\n",
        f"petclf 99.1.0 is loaded nowhere any more; its archive stays in {clean.store}\n",
    ]
    for one in asking:
        assert {status for status, _ in one.seen} == {200}
        assert one.versions == [clean.live, "99.1.0", clean.live]
    assert (clean.loaded(), clean.live_file()) == ([[(clean.live, True)]], (clean.live, None))
    assert clean.history() == [
        ("adopt", clean.live), ("register", "99.1.0"), ("promote", "99.1.0"), ("rollback", clean.live), ("retire", "99.1.0")
    ]  # fmt: skip


def test_after_a_switch_has_returned_no_other_version_answers(clean: Place, tmp_path: Path) -> None:
    clean.done("register", str(archive_called("99.1.0", tmp_path)), "--workers", "1")
    for command, version in [
        (("promote", "99.1.0", "--force", "a test", "--watch", "0.1"), "99.1.0"),
        (("rollback",), clean.live),
    ] * 2:
        with clients(*[clean.servers[0].url] * 8):
            clean.done(*command)
            with clients(*[clean.servers[0].url] * 2) as later:
                time.sleep(0.5)
        assert [one.versions for one in later] == [[version], [version]]


def test_the_history_knows_which_archive_answered_when(clean: Place, tmp_path: Path) -> None:
    clean.done("register", str(archive_called("99.1.0", tmp_path)), "--workers", "1")
    before = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 5))
    clean.done("promote", "99.1.0", "--force", "a test", "--watch", "0.1")
    time.sleep(1.1)
    then = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    clean.done("rollback")

    [found] = json.loads(clean.done("history", "--json", "--at", then))
    digest = requests.post(f"{clean.servers[0].url}/predictions/petclf/99.1.0", PHOTO, timeout=10).headers["x-petclf-archive"]
    assert (found["version"], found["sha256"]) == ("99.1.0", digest)
    assert "begins after" in clean.refused("history", "--at", before)


def test_the_documented_commands_release_a_version(clean: Place, tmp_path: Path) -> None:
    photos = labelled_by(clean.servers[0].url, tmp_path / "labelled", 10)
    archive_called("2.1.0", tmp_path)
    gate = f" --gate {gate_for_drawings(tmp_path, 20)}"
    steps = commands("docs/operations.md", "Releasing a version")
    assert [command.split()[2] for command in steps] == [
        "register", "verify", "promote", "rollback", "retire", "list", "history",
    ]  # fmt: skip
    for command in steps:
        ours = command.replace("petclf-2.1.0.mar", f"{tmp_path}/petclf-2.1.0.mar").replace("labelled/", str(photos))
        ours += {"register": " --workers 1", "verify": gate, "promote": f"{gate} --watch 1"}.get(command.split()[2], "")
        done = clean.run(*shlex.split(ours)[2:])
        assert (done.returncode, done.stderr) == (0, ""), (command, done.stdout)
    assert clean.loaded() == [[(clean.live, True)]]


def test_the_same_commands_go_through_the_gateway_with_its_key(clean: Place, tmp_path: Path) -> None:
    newer = archive_called("2.1.0", tmp_path)
    (tmp_path / "key").write_text("operator:open sesame\n")
    server = clean.servers[0]
    settings = behind(server) | {"PREDICTION_LOG": str(server.folder / "predictions.jsonl")}
    with run_gateway(tmp_path / "gateway", Upstream(server.port), **settings) as (gateway, _):
        where = ["--server", f"{gateway.management},{gateway.url}", "--store", str(clean.store)]

        def run(*words: str, key: str = "key") -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "scripts.models", *words, *where, "--key-file", str(tmp_path / key)]
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

        register, compare = (shlex.split(one)[2:] for one in commands("docs/shadow.md") if " models " in one)
        steps = [
            (register[0], str(newer), *register[2:]), ("promote", "2.1.0", "--force", "a test", "--watch", "1"), ("rollback",),
            ("retire", "2.1.0"), ("list",),
        ]  # fmt: skip
        with clients(gateway.url) as [asking]:
            results = [run(*step) for step in steps]
        compared = run(*compare)
        (tmp_path / "wrong").write_text("operator:guess\n")
        stranger = run("list", key="wrong")
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 5
    assert {status for status, _ in asking.seen} == {200}
    assert asking.versions == [clean.live, "2.1.0", clean.live]
    assert (compared.returncode, compared.stderr) == (3, "")
    assert compared.stdout.startswith(f"2.1.0 beside {clean.live}, ")
    assert "\nverdict       not known yet: " in compared.stdout
    assert (stranger.returncode, stranger.stdout) == (2, "")
    assert "does not answer: " in stranger.stderr
    assert "is the key right?" in stranger.stderr


def test_only_a_gateway_shows_the_log_of_a_comparison(clean: Place) -> None:
    result = clean.run("shadow", "99.1.0")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {clean.servers[0].management} shows no prediction log: ")
    assert result.stderr.endswith("; name the file behind the version\n")


# --- candidates that must not come in


def truncated(source: Path, target: Path, _: Path) -> None:
    target.write_bytes(source.read_bytes()[:1_000_000])


def corrupt(source: Path, target: Path, _: Path) -> None:
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 255
    target.write_bytes(data)


def of_another_name(source: Path, target: Path, _: Path) -> None:
    def renamed(manifest: bytes) -> bytes:
        content = json.loads(manifest)
        content["model"]["modelName"] = "lions"
        return json.dumps(content).encode()

    with_file(source, target, "MAR-INF/MANIFEST.json", renamed)


def with_other_code_than_it_says(source: Path, target: Path, _: Path) -> None:
    with_file(source, target, CLASSIFIER, lambda code: code + b"\n# changed on the way", provenance=False)


def of_the_live_version(source: Path, target: Path, store: Path) -> None:  # noqa: ARG001
    with_file(store / "petclf.mar", target, CLASSIFIER, lambda code: code + b"\n# rebuilt")


def that_cannot_load(source: Path, target: Path, _: Path) -> None:
    with_file(source, target, "petclf_handler.py", lambda _: b"import nothing_of_this_name\n")


def with_a_wrong_known_answer(source: Path, target: Path, _: Path) -> None:
    """The photo's answer is recorded wrong; the worker is made to start all the same, so that only the tool can see it."""
    with zipfile.ZipFile(source) as packed_archive:
        model = packed_archive.read("petclf.pt")
    with with_temporary(model, target.with_suffix(".pt")) as path, zipfile.ZipFile(path) as old:
        files = {entry: old.read(entry) for entry in old.namelist()}
    [name] = [entry for entry in files if entry.endswith("metadata.json")]
    content = json.loads(files[name])
    for form in (content, content["int8"]):
        form["golden"][0]["probabilities"] = [0.123, 0.877]
    changed = pack({**files, name: json.dumps(content).encode()})
    with_file(source, target, "petclf.pt", lambda _: changed)
    with_file(target, target, CLASSIFIER, lambda code: code + b"\nClassifier.check_golden = lambda self: None\n")


@contextlib.contextmanager
def with_temporary(data: bytes, path: Path) -> Iterator[Path]:
    path.write_bytes(data)
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "{path} is no archive of petclf (File is not a zip file)"),
        (corrupt, "{path} is damaged at petclf.pt"),
        (of_another_name, "{path} holds lions 99.2.0, not petclf"),
        (with_other_code_than_it_says, "{path}: handler/classifier.py is not what provenance.json says"),
        (of_the_live_version, "{store}/petclf.mar is petclf {live}, too, with other bytes; give the new one another version"),
        (that_cannot_load, "petclf 99.2.0 is not registered: a worker ended while it loaded"),
        (with_a_wrong_known_answer, "petclf 99.2.0 answers its known photo wrong: version 99.2.0 says ["),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_candidate_is_refused_for_its_reason_and_the_live_version_never_notices(
    clean: Place, tmp_path: Path, spoil: Callable[[Path, Path, Path], None], reason: str
) -> None:
    path = tmp_path / "candidate.mar"
    spoil(archive_called("99.2.0", tmp_path), path, clean.store)
    before = sorted(file.name for file in clean.store.glob("*.mar"))
    with clients(clean.servers[0].url, clean.servers[0].url) as asking:
        said = clean.refused("register", str(path), "--workers", "1")
    assert reason.format(path=path, store=clean.store, live=clean.live) in said
    assert {answer for one in asking for answer in one.seen} == {(200, clean.live)}
    assert clean.loaded() == [[(clean.live, True)]]
    assert sorted(file.name for file in clean.store.glob("*.mar")) == before


def labelled_by(url: str, folder: Path, count: int) -> Path:
    """Drawings in folders that are called as the live version answers: it is right about all of them."""
    for number, shape in itertools.product(range(count * 7), ("cat", "dog", "cross")):
        photo = encoded(draw_photo(shape, number, (160, 120)))
        label = requests.post(f"{url}/predictions/petclf", photo, headers={"Content-Type": "image/jpeg"}, timeout=10).json()[
            "label"
        ]
        (folder / label).mkdir(parents=True, exist_ok=True)
        if len(list((folder / label).iterdir())) < count:
            (folder / label / f"{number}-{shape}.jpg").write_bytes(photo)
        if [len(list(one.iterdir())) for one in folder.iterdir()] == [count, count]:
            return folder
    pytest.skip("the model answers drawings with one label only")


def gate_for_drawings(folder: Path, photos: int) -> Path:
    """The shipped gate, but for fewer photos, for drawings, which no calibration is for, and for a busy machine."""
    text = (ROOT / "operate" / "gate.yaml").read_text()
    for rule, limit in (
        ("photos_at_least: 200", photos),
        ("photos_of_each_label_at_least: 20", photos // 2),
        ("calibration_error_at_most: 0.05", 1),
        ("latency_ratio_at_most: 1.5", 2.5),
    ):
        assert rule in text
        text = text.replace(rule, f"{rule.split(':')[0]}: {limit}")
    path = folder / "gate.yaml"
    path.write_text(text)
    return path


def test_the_gate_lets_an_equal_candidate_pass_and_neither_a_worse_nor_a_slower_one(clean: Place, tmp_path: Path) -> None:
    photos = labelled_by(clean.servers[0].url, tmp_path / "photos", 10)
    gate = str(gate_for_drawings(tmp_path, 20))
    candidates = {
        "99.1.0": archive_called("99.1.0", tmp_path),  # the same model
        "99.2.0": faulty(tmp_path, "99.2.0", tmp_path / "none", "worse"),
        "99.3.0": faulty(tmp_path, "99.3.0", tmp_path / "none", "slow"),
    }
    reasons = {}
    for version, archive in candidates.items():
        clean.done("register", str(archive), "--workers", "1")
        assert "has not been compared with what is live" in clean.refused("promote", version, "--watch", "0.1")
        compared = clean.run("verify", version, str(photos), "--gate", gate, "--json")
        reasons[version] = json.loads(compared.stdout)["reasons"]
        assert compared.returncode == bool(reasons[version])
        if reasons[version]:
            assert "does not pass gate.yaml: " in clean.refused("promote", version, "--gate", gate, "--watch", "0.1")
            clean.done("retire", version)
    assert reasons["99.1.0"] == []
    assert [reason.split(" is ")[0] for reason in reasons["99.2.0"]] == ["accuracy loss", "worse p"]
    assert [reason.split(" is ")[0] for reason in reasons["99.3.0"]] == ["latency ratio"]
    assert "photos is 20, must be at least 200" in clean.refused("promote", "99.1.0", "--watch", "0.1")  # the shipped gate
    clean.done("promote", "99.1.0", "--gate", gate, "--watch", "0.1")
    clean.done("rollback")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("errors", "photos could not be answered"),
        ("slow", "a photo takes "),
        ("unsure", "it is unsure of "),
    ],
)
def test_a_fault_after_promotion_is_rolled_back_by_itself(clean: Place, tmp_path: Path, fault: str, reason: str) -> None:
    switch = tmp_path / "fault"
    clean.done("register", str(archive_called("99.3.0", tmp_path, **NEVER_UNSURE)), "--workers", "1")
    clean.done("promote", "99.3.0", "--force", "it is sure of drawings", "--watch", "0.1")
    clean.done("register", str(faulty(tmp_path, "99.4.0", switch)), "--workers", "1")
    begun: list[float] = []

    def go_wrong() -> None:
        wait_until(lambda: version_that_answers(clean) == "99.4.0", 60)
        time.sleep(1)
        switch.write_text(fault)
        begun.append(time.monotonic())

    with many_asking(clean):
        time.sleep(2)  # the version before must have answered users, or there is nothing to compare with
        thread = threading.Thread(target=go_wrong)
        thread.start()
        said = clean.refused("promote", "99.4.0", "--force", "a test", "--watch", "60")
        ended = time.monotonic()
        thread.join()
    assert reason in said
    assert "petclf 99.4.0 was rolled back, 99.3.0 is live again: " in said
    assert ended - begun[0] < 30  # of 60; 10 on a machine with nothing else to do
    assert [one[0][0] for one in clean.loaded()] == ["99.3.0"]
    assert clean.live_file() == ("99.3.0", clean.live)
    assert clean.history()[-1] == ("breach", "99.4.0")
    clean.done("rollback")


def version_that_answers(place: Place) -> str:
    answer = requests.post(
        f"{place.servers[0].url}/predictions/petclf", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=30
    )
    return answer.headers.get("x-petclf-version", "")


@contextlib.contextmanager
def many_asking(place: Place) -> Iterator[None]:
    over = threading.Event()

    def ask_on() -> None:
        with requests.Session() as session:
            while not over.wait(0.02):
                session.post(
                    f"{place.servers[0].url}/predictions/petclf", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=30
                )

    threads = [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


# --- several servers, kills, restarts


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found, end = begin(tmp_path_factory.mktemp("pair"), 2)
    yield found
    end()


KILLED_AT = """
import os, signal, sys
from operate import models, replica, store
from serving.management import Management
from scripts import models as tool

left = {steps}


def counted(step):
    def run(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)
    return run


Management.ask = counted(Management.ask)
replica.Replica.ask = counted(replica.Replica.ask)
store.Store.tell = counted(store.Store.tell)
store.write_durably = counted(store.write_durably)
tool.main(sys.argv[1:])
"""


def test_killed_between_any_two_steps_the_same_command_again_ends_right(pair: Place, tmp_path: Path) -> None:
    """Every call to a server and every write is a step; the live version is asked all the time, and never fails."""
    newer = archive_called("99.1.0", tmp_path)
    old = pair.live
    commands = [
        ("register", str(newer), "--workers", "1"),
        ("promote", "99.1.0", "--force", "a test", "--watch", "0.1"),
        ("rollback",),
        ("retire", "99.1.0"),
    ]
    ends = [
        ([[(old, True), ("99.1.0", True)]] * 2, (old, None), ["adopt", "register"]),
        ([[("99.1.0", True), (old, True)]] * 2, ("99.1.0", old), ["adopt", "register", "promote"]),
        ([[(old, True), ("99.1.0", True)]] * 2, (old, "99.1.0"), ["adopt", "register", "promote", "rollback"]),
        ([[(old, True)]] * 2, (old, None), ["adopt", "register", "promote", "rollback", "retire"]),
    ]
    killed = 0
    with clients(*[server.url for server in pair.servers] * 2) as asking:
        for command, (loaded, live, told) in zip(commands, ends, strict=True):
            for steps in itertools.count():
                result = pair.run(*command, wrapper=KILLED_AT.format(steps=steps))
                if result.returncode != -9:
                    break
                killed += 1
            assert result.returncode == 0, (command, steps, result.stderr)
            assert pair.loaded() == loaded
            assert pair.live_file() == live
            assert [what for what, _ in pair.history()] == told
    assert killed > 40
    assert {answer for one in asking for answer in one.seen} == {(200, old), (200, "99.1.0")}
    assert [path.name for path in pair.store.iterdir() if path.name.endswith(".tmp")] == []


def test_all_servers_change_or_none(pair: Place, tmp_path: Path) -> None:
    """The second server cannot have the candidate: the first loses it again."""
    newer = archive_called("99.5.0", tmp_path)
    assert f"petclf {pair.live} is live" in pair.refused("retire", pair.live)
    away = Serving(**{**vars(pair.servers[1]), "management_port": 9, "port": 9})
    lame = Place([pair.servers[0], away], pair.store, pair.live, pair.folder)
    result = lame.run("register", str(newer), "--workers", "1")
    assert result.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in result.stderr
    assert [[version for version, _ in one] for one in pair.loaded()] == [[pair.live]] * 2
    assert not (pair.store / "petclf-99.5.0.mar").exists()


def test_what_was_live_is_live_after_a_restart_and_the_version_before_is_at_hand(tmp_path: Path) -> None:
    place, end = begin(tmp_path / "one", 1)
    newer = archive_called("99.1.0", tmp_path)
    place.done("register", str(newer), "--workers", "1")
    place.done("promote", "99.1.0", "--force", "a test", "--watch", "0.1")
    place.done("register", str(archive_called("99.9.0", tmp_path)), "--workers", "1")  # newer, came later, and never promoted
    end()

    again = start(tmp_path / "one", {}, None, "--workers", "1")
    place.servers = [again]
    assert place.loaded() == [[("99.1.0", True)]]
    end()

    both = start(tmp_path / "one", {}, None, "--workers", "1", "--previous")
    place.servers = [both]
    try:
        assert place.loaded() == [[("99.1.0", True), (place.live, True)]]
        assert (
            place.done("rollback") == f"petclf {place.live} is live again on 1 server\n"
        )  # and nothing had to be registered first
        assert place.loaded()[0][0] == (place.live, True)

        (place.store / "petclf.mar").unlink()  # of what is live: a reason to leave it, and none to stay
        place.done("rollback")
        assert place.loaded()[0][0] == ("99.1.0", True)
        assert "petclf.mar is gone; put it back, sha256 " in place.refused("rollback")
        assert place.loaded()[0][0] == ("99.1.0", True)
    finally:
        end()
