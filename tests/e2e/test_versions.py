"""A second version comes beside the first, takes over and the first goes, while requests run; with curl, as documented."""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import re
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.build_archive import build_archive
from tests.documents import commands
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving, start, wait_until

pytestmark = pytest.mark.e2e

PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=95)


@pytest.fixture(scope="module")
def released() -> str:
    metrics: dict[str, str] = json.loads(subprocess.run(
        ["unzip", "-p", str(ROOT / "pretrained" / "petclf.pt"), "*/extra/metadata.json"], capture_output=True, check=True, text=True
    ).stdout)  # fmt: skip
    return metrics["version"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    serving = start(tmp_path)
    yield serving
    serving.stop()


def version_of(serving: Serving, version: str = "") -> str:
    response = requests.post(
        f"{serving.url}/predictions/petclf{version and '/' + version}", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=30
    )
    assert response.status_code == 200, response.text
    assert response.headers["x-petclf-version"] == response.json()["model"]["version"]
    return str(response.json()["model"]["version"])


@pytest.mark.slow
def test_versions_take_over_from_each_other_without_a_lost_request(server: Serving, newer: Path, released: str) -> None:
    """By the documented commands, there and back, while 50 clients ask all the time."""
    shutil.copy(newer, server.store)
    (server.folder / "photo.jpg").write_bytes(PHOTO)
    stop = threading.Event()

    def ask_on() -> list[str]:
        with requests.Session() as session:
            seen = []
            while not stop.is_set():
                answer = session.post(
                    f"{server.url}/predictions/petclf", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=30
                )
                assert answer.status_code == 200, answer.text
                seen.append(answer.json()["model"]["version"])
            return seen

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        askers = [pool.submit(ask_on) for _ in range(50)]
        try:
            switch(server, released, "99.10.0", "petclf-99.10.0.mar")
            assert version_of(server) == "99.10.0"
            switch(server, "99.10.0", released, "petclf.mar")
            time.sleep(0.5)
        finally:
            stop.set()
        seen = [asker.result() for asker in askers]

    assert [model["modelVersion"] for model in requests.get(f"{server.management}/models/petclf/all", timeout=10).json()] == [
        released
    ]
    for versions in seen:  # the old one, the new one, the old one again, and nothing in between
        assert [version for version, _ in itertools.groupby(versions)] == [released, "99.10.0", released]


def switch(server: Serving, old: str, new: str, archive: str) -> None:
    """Replace one version by another by the commands of docs/operations.md."""
    steps = commands("docs/operations.md", "By hand, with curl")
    named = re.findall(r"\d+\.\d+\.\d+(?!\.\d)", " ".join(steps).replace("127.0.0.1", ""))
    here = {
        f"petclf-{named[0]}.mar": archive, named[0]: new, named[-1]: old, "photo.jpg": str(server.folder / "photo.jpg"),
        ":8080": f":{server.port}", ":8081": f":{server.management_port}", ":8083": f":{server.ready_port}",
    }  # fmt: skip
    for command in steps:
        command = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], command)  # at once: 2.0.0 may be in both
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{command}: {result.stdout} {result.stderr}"


def test_of_two_versions_in_the_store_the_one_that_came_last_is_started_and_no_other(
    tmp_path: Path, newer: Path, released: str
) -> None:
    build_archive(ROOT / "pretrained" / "petclf.pt", tmp_path / "released.mar")
    serving = start(tmp_path, {"z.mar": newer, "a.mar": tmp_path / "released.mar"}, None, "--workers", "1")
    try:
        assert version_of(serving) == version_of(serving, released) == released
        assert requests.post(f"{serving.url}/predictions/petclf/99.10.0", PHOTO, timeout=10).status_code == 404
    finally:
        assert serving.stop() == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/petclf.mar", "https://example.org/x.mar", "file:///tmp/x.mar", "../x.mar"])
def test_nothing_is_registered_from_outside_the_store(server_of_session: Serving, url: str) -> None:
    response = requests.post(f"{server_of_session.management}/models", params={"url": url, "initial_workers": "1"}, timeout=30)
    assert response.status_code in (400, 404)
    assert [
        model["modelName"] for model in requests.get(f"{server_of_session.management}/models", timeout=10).json()["models"]
    ] == ["petclf"]


def test_a_refusal_costs_the_connection_and_the_next_request_gets_another(server_of_session: Serving) -> None:
    """TorchServe closes a connection with every status from 400 up; clients connect again by themselves."""
    connection = http.client.HTTPConnection("127.0.0.1", server_of_session.port, timeout=30)

    def ask(body: bytes) -> tuple[int, bool]:
        """Return the answer's status, and whether the connection is still there."""
        connection.request("POST", "/predictions/petclf", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, connection.sock is not None

    with contextlib.closing(connection):
        assert [ask(PHOTO), ask(PHOTO), ask(b"no photo"), ask(PHOTO)] == [(200, True), (200, True), (400, False), (200, True)]


def test_without_a_prediction_log_each_photo_is_remembered_too(server_of_session: Serving) -> None:
    def total() -> int:
        remembered: int = server_of_session.describe()["customizedMetadata"]["recent"]["total"]
        return remembered

    time.sleep(0.5)  # what earlier tests asked is remembered
    before, asked = total(), 21
    for _ in range(asked):
        version_of(server_of_session)
    wait_until(lambda: total() == before + asked)


def changed(archive: Path, target: Path, name: str, content: bytes) -> None:
    """Copy an archive, or a model, with one file of it replaced."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))


def manifest(archive: Path, **changes: str) -> bytes:
    with zipfile.ZipFile(archive) as packed:
        content = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    return json.dumps({**content, "model": {**content["model"], **changes}}).encode()


def model_with_a_wrong_golden_answer(archive: Path, folder: Path) -> bytes:
    with zipfile.ZipFile(archive) as packed:
        (folder / "right.pt").write_bytes(packed.read("petclf.pt"))
    with zipfile.ZipFile(folder / "right.pt") as model:
        [name] = [entry for entry in model.namelist() if entry.endswith("extra/metadata.json")]
        metadata = json.loads(model.read(name))
    for form in (metadata, metadata["int8"]):
        form["golden"][0]["probabilities"] = [0.5, 0.5]
    changed(folder / "right.pt", folder / "wrong.pt", name, json.dumps(metadata).encode())
    return (folder / "wrong.pt").read_bytes()


@pytest.fixture(scope="module")
def refused_archives(server_of_session: Serving, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put archives into the store that must not come to serve."""
    store, manifest_file = server_of_session.store, "MAR-INF/MANIFEST.json"
    wrong = model_with_a_wrong_golden_answer(newer, tmp_path_factory.mktemp("wrong"))
    shutil.copy(newer, store)
    changed(newer, store / "foreign.mar", manifest_file, manifest(newer, handler="os:system"))
    changed(newer, store / "faulty.mar", "petclf_handler.py", b"import nothing_of_this_name\n")
    changed(newer, store / "wrong.mar", "petclf.pt", wrong)
    changed(store / "wrong.mar", store / "lions.mar", manifest_file, manifest(newer, modelName="lions"))
    (store / "broken.mar").write_bytes(newer.read_bytes()[:1_000_000])


WRONG = "a worker could not start: a known photo is answered wrong, by 0."
REFUSED = {
    "url=petclf-99.10.0.mar&handler=os:system": (400, "parameter 'handler' is not taken here; "),
    "url=petclf-99.10.0.mar&model_name=twin": (400, "parameter 'model_name' is not taken here; "),
    "url=petclf-99.10.0.mar&%68andler=x": (400, "parameter '%68andler' is not taken here; "),
    "url=petclf.mar": (409, "petclf {released} is registered already; "),
    "url=nowhere.mar": (404, "there is no nowhere.mar in the model store"),
    "url=foreign.mar": (422, "{store}/foreign.mar names another handler: 'os:system'; "),
    "url=broken.mar": (422, "{store}/broken.mar is no archive of petclf (File is not a zip file); "),
    "url=faulty.mar": (
        422,
        "petclf 99.10.0 is not registered: a worker ended while it loaded; its last words: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'",
    ),
    "url=wrong.mar": (422, f"petclf 99.10.0 is not registered: {WRONG}"),
    "url=lions.mar": (422, f"lions 99.10.0 is not registered: {WRONG}"),
}


@pytest.mark.usefixtures("refused_archives")
@pytest.mark.parametrize("query", REFUSED)
def test_what_must_not_serve_is_refused_with_its_reason_and_leaves_nothing(
    server_of_session: Serving, released: str, query: str
) -> None:
    """And the live version answers all the time, and the server stays ready."""
    status, reason = REFUSED[query]
    seen: list[tuple[str, int]] = []
    done = threading.Event()

    def ask_on() -> None:
        while not done.is_set():
            ready = requests.get(f"{server_of_session.supervisor}/ready", timeout=30).status_code
            seen.append((version_of(server_of_session), ready))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_on)
        try:
            answer = registration(server_of_session, query)
        finally:
            done.set()
        asking.result(60)

    expected = reason.format(released=released, store=server_of_session.store)
    assert (answer[0], answer[1]["error"]["message"][: len(expected)]) == (status, expected)
    assert set(seen) == {(released, 200)}
    assert registered(server_of_session) == [("petclf", released)]


def registration(serving: Serving, query: str) -> tuple[int, Any]:
    """Send the query as it is: requests would decode what is percent-encoded without need."""
    connection = http.client.HTTPConnection("127.0.0.1", serving.ready_port, timeout=150)
    with contextlib.closing(connection):
        connection.request("POST", f"/models?{query}")
        answer = connection.getresponse()
        return answer.status, json.load(answer)


def registered(serving: Serving) -> list[tuple[str, str]]:
    names = [model["modelName"] for model in requests.get(f"{serving.management}/models", timeout=10).json()["models"]]
    versions = {name: requests.get(f"{serving.management}/models/{name}/all", timeout=10).json() for name in names}
    return [(name, one["modelVersion"]) for name in names for one in versions[name]]


@pytest.fixture(scope="module")
def server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = start(tmp_path_factory.mktemp("outside"), None, {"PETCLF_PREDICTION_LOG": ""}, "--workers", "1")
    yield serving
    serving.stop()
