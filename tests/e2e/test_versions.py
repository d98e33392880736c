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
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from scripts.build_archive import build_archive
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


def documented(name: str) -> list[str]:
    """The curl commands of a section of docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return re.findall(r"^    (curl .*)$", section, re.MULTILINE)


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
    commands = documented("A new version")
    named = re.findall(r"\d+\.\d+\.\d+(?!\.\d)", " ".join(commands).replace("127.0.0.1", ""))
    here = {
        f"petclf-{named[0]}.mar": archive, named[0]: new, named[-1]: old, "photo.jpg": str(server.folder / "photo.jpg"),
        ":8080": f":{server.port}", ":8081": f":{server.management_port}", ":8083": f":{server.ready_port}",
    }  # fmt: skip
    for command in commands:
        for documented_one, ours in here.items():
            command = command.replace(documented_one, ours)
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{command}: {result.stdout} {result.stderr}"


def test_of_two_versions_in_the_store_the_newest_is_the_default(tmp_path: Path, newer: Path, released: str) -> None:
    build_archive(ROOT / "pretrained" / "petclf.pt", tmp_path / "released.mar")
    serving = start(tmp_path, {"a.mar": tmp_path / "released.mar", "z.mar": newer}, None, "--workers", "1")
    try:
        assert (version_of(serving), version_of(serving, released), version_of(serving, "99.10.0")) == (
            "99.10.0",
            released,
            "99.10.0",
        )
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


@pytest.fixture(scope="module")
def server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = start(tmp_path_factory.mktemp("outside"), None, {"PETCLF_PREDICTION_LOG": ""}, "--workers", "1")
    yield serving
    serving.stop()
