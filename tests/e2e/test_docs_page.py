"""The samples of the gateway's /docs page, run as they stand there, through a real nginx."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, Gateway, running

pytestmark = pytest.mark.e2e

if NGINX is None:
    pytest.skip(HOW_TO_GET_NGINX, allow_module_level=True)

PHOTO = b"\xff\xd8 a photo \r\n\x00"
ANSWER = {"label": "dog", "confidence": 0.998, "unsure": False}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture(autouse=True)
def _usual(gateway: Gateway) -> None:
    gateway.upstream.status, gateway.upstream.body = b"200 OK", json.dumps(ANSWER).encode()
    gateway.upstream.seen.clear()


def sample(gateway: Gateway, name: str) -> str:
    page = requests.get(f"{gateway.url}/docs", timeout=10).text
    [text] = re.findall(rf'<pre><code id="{name}">(.*?)</code></pre>', page, re.DOTALL)
    return html.unescape(text).replace("HOST", gateway.url)


def run(command: list[str], folder: Path) -> str:
    (folder / "photo.jpg").write_bytes(PHOTO)
    (folder / "other.jpg").write_bytes(b"another photo")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


def ask(gateway: Gateway, language: str, folder: Path) -> str:
    if language == "python":
        return run([sys.executable, "-c", sample(gateway, language)], folder)
    if not (node := shutil.which("node")):
        pytest.skip("no Node.js here")
    (folder / "ask.mjs").write_text(sample(gateway, language), encoding="utf-8")
    return run([node, "ask.mjs"], folder)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_sample_prints_the_answer_or_the_servers_reason(gateway: Gateway, tmp_path: Path, language: str) -> None:
    assert ask(gateway, language, tmp_path) == "dog 0.998 sure\n"
    assert (gateway.upstream.last()[0], gateway.upstream.last()[2]) == ("POST /predictions/petclf HTTP/1.1", PHOTO)
    gateway.upstream.status = b"400 Bad Request"
    gateway.upstream.body = b'{"error": {"code": "not_an_image", "message": "not a readable image", "request_id": "r"}}'
    assert ask(gateway, language, tmp_path) == "not_an_image not a readable image\n"


def test_the_sample_for_many_photos_prints_an_answer_each(gateway: Gateway, tmp_path: Path) -> None:
    refused = {"error": {"code": "not_an_image", "message": "not a readable image"}}
    gateway.upstream.body = json.dumps({"predictions": [ANSWER, refused]}).encode()
    assert run([sys.executable, "-c", sample(gateway, "many")], tmp_path) == "dog\nnot a readable image\n"
    assert json.loads(gateway.upstream.last()[2]) == {"instances": ["/9ggYSBwaG90byANCgA=", "YW5vdGhlciBwaG90bw=="]}


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_every_line_with_curl_sends_the_photo(gateway: Gateway, tmp_path: Path) -> None:
    bodies, paths = [], []
    for line in sample(gateway, "curl").splitlines():
        run([*shlex.split(line), "--silent", "--show-error", "--fail"], tmp_path)
        first, _, body = gateway.upstream.last()
        paths.append(first.split()[1])
        bodies.append(body)
    assert paths == ["/predictions/petclf", "/predictions/petclf", "/explanations/petclf"]
    assert [bodies[0], PHOTO in bodies[1], bodies[2]] == [PHOTO, True, PHOTO]
    assert json.loads((tmp_path / "where.png").read_text()) == ANSWER
