"""A second version comes beside the first, takes over and the first goes, while requests run; with curl, as documented."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import shutil
import subprocess
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


def test_a_new_version_takes_over_without_a_lost_request(server: Serving, newer: Path, released: str) -> None:
    shutil.copy(newer, server.store)
    stop = False

    def ask_on() -> list[str]:
        seen = []
        while not stop:
            seen.append(version_of(server))
        return seen

    (server.folder / "photo.jpg").write_bytes(PHOTO)
    commands = documented("A new version")
    named = re.findall(r"\d+\.\d+\.\d+(?!\.\d)", " ".join(commands).replace("127.0.0.1", ""))
    spoken_of = {named[0]: "99.10.0", named[-1]: released}  # the first command brings the new one, the last removes the old one
    here = {"127.0.0.1:8081": f"127.0.0.1:{server.management_port}", "127.0.0.1:8080": f"127.0.0.1:{server.port}"}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        askers = [pool.submit(ask_on) for _ in range(3)]
        try:
            for command in commands:
                for old, new in {**spoken_of, **here, "photo.jpg": str(server.folder / "photo.jpg")}.items():
                    command = command.replace(old, new)
                result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
                assert result.returncode == 0, f"{command}: {result.stdout} {result.stderr}"
                if "initial_workers" in command:
                    assert (version_of(server), version_of(server, "99.10.0")) == (released, "99.10.0")
                time.sleep(0.5)
        finally:
            stop = True
        seen = [asker.result() for asker in askers]

    assert version_of(server) == "99.10.0"
    assert [model["modelVersion"] for model in requests.get(f"{server.management}/models/petclf/all", timeout=10).json()] == [
        "99.10.0"
    ]
    for versions in seen:  # the old one, then the new one, and never back
        assert versions == sorted(versions, key=[released, "99.10.0"].index)
        assert len(set(versions)) == 2


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


def test_who_is_told_to_come_back_later_or_that_it_is_no_photo_keeps_the_connection_and_who_sends_no_http_loses_it(
    server_of_session: Serving,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server_of_session.port, timeout=30)

    def ask(body: bytes, **headers: str) -> tuple[int, bool]:
        """Return the answer's status, and whether the connection is still there."""
        connection.request("POST", "/predictions/petclf", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, connection.sock is not None

    def scale(workers: int) -> None:
        limits = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        requests.put(f"{server_of_session.management}/models/petclf", params=limits, timeout=60).raise_for_status()

    with contextlib.closing(connection):
        assert ask(PHOTO) == (200, True)
        scale(0)
        try:
            assert [ask(PHOTO), ask(PHOTO)] == [(503, True), (503, True)]
        finally:
            scale(1)
        assert [ask(b"no photo"), ask(PHOTO)] == [(400, True), (200, True)]
        assert ask(PHOTO, **{"no name": "x"}) == (400, False)


def test_without_a_prediction_log_each_photo_is_remembered_too_in_a_quiet_moment(server_of_session: Serving) -> None:
    def total() -> int:
        remembered: int = server_of_session.describe()["customizedMetadata"]["recent"]["total"]
        return remembered

    before, asked = total(), 21
    for _ in range(asked):
        version_of(server_of_session)
    wait_until(lambda: total() == before + asked)


@pytest.fixture(scope="module")
def server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = start(tmp_path_factory.mktemp("outside"), None, {"PETCLF_PREDICTION_LOG": ""}, "--workers", "1")
    yield serving
    serving.stop()
