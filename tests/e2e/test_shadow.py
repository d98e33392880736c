"""A candidate is asked beside the live version, and no client notices, whatever the candidate does."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from operate.shadow import is_chosen
from scripts import shadow
from scripts.build_archive import build_archive
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, free_port, start, wait_until
from tests.e2e.nginx import ANSWER, HOW_TO_GET_NGINX, NGINX, Gateway, running
from training.config import load_params

pytestmark = pytest.mark.e2e

if NGINX is None:
    pytest.skip(HOW_TO_GET_NGINX, allow_module_level=True)

LIVE, CANDIDATE = "/predictions/petclf", "/predictions/petclf/2.1.0"
OTHER_ANSWER = b'{"label":"dog","of":"the candidate"}'
METRICS = free_port()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """The candidate is asked everything, and answers something else."""
    everything = {"GATEWAY_SHADOW": "2.1.0", "GATEWAY_SHADOW_SHARE": "100", "GATEWAY_METRICS": f"127.0.0.1:{METRICS}"}
    with running(tmp_path, **everything) as started:
        started.upstream.special[CANDIDATE] = OTHER_ANSWER
        yield started


def asked(gateway: Gateway, path: str = CANDIDATE) -> list[bytes]:
    return [seen for seen in gateway.upstream.seen if seen.split(b" ", 2)[1].decode() == path]


def counted() -> dict[str, float]:
    """What the gateway counted, but for connections and for what did not happen."""
    text = requests.get(f"http://127.0.0.1:{METRICS}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for sample in samples if sample.value and "connections" not in sample.name
    }  # fmt: skip


def ask(gateway: Gateway, count: int, path: str = "/predict", body: bytes = b"photo") -> list[tuple[int, bytes]]:
    """Ask over one connection that stays open."""
    with requests.Session() as session:
        answers = [session.post(gateway.url + path, body, timeout=20) for _ in range(count)]
    return [(answer.status_code, answer.content) for answer in answers]


@pytest.mark.parametrize("path", ["/predict", LIVE, "/v1/models/petclf:predict"])
def test_the_candidate_gets_the_question_and_the_client_gets_the_live_versions_answer(gateway: Gateway, path: str) -> None:
    headers = {"Content-Type": "image/jpeg", "X-Request-Id": "mine", "Accept": "application/json", "Authorization": "Basic eDp5"}
    answer = requests.post(gateway.url + path, b"photo", headers=headers, timeout=10)
    wait_until(lambda: asked(gateway))
    head, _, body = asked(gateway)[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    arrived = dict(line.split(": ", 1) for line in lines)
    assert (answer.status_code, answer.content, answer.headers["X-Request-Id"]) == (200, ANSWER, "mine")
    assert abs(time.time() - float(arrived.pop("X-Petclf-Arrived"))) < 60
    assert (first, body) == (f"POST {CANDIDATE} HTTP/1.1", b"photo")
    assert arrived == {
        "Host": "petclf", "Connection": "close", "Content-Type": "image/jpeg", "Accept": "application/json", "X-Request-Id": "mine",
        "Content-Length": "5",
    }  # fmt: skip


def test_an_answer_has_every_header_and_byte_that_it_has_without_a_candidate(tmp_path: Path) -> None:
    def raw(gateway: Gateway) -> list[bytes]:
        request = b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: one\r\nContent-Length: 5\r\nConnection: close\r\n\r\nphoto"
        return [line for line in gateway.raw(request).split(b"\r\n") if not line.startswith(b"Date:")]

    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    with running(tmp_path / "with", GATEWAY_SHADOW="2.1.0", GATEWAY_SHADOW_SHARE="100") as gateway:
        gateway.upstream.special[CANDIDATE] = OTHER_ANSWER
        answer = raw(gateway)
        wait_until(lambda: asked(gateway))
    with running(tmp_path / "without") as gateway:
        assert raw(gateway) == answer


@pytest.mark.parametrize("size", [1, 100_000, 200_000, 3_000_000, 10_485_760])
def test_a_body_arrives_whole_whether_it_waited_in_memory_or_in_a_file(gateway: Gateway, size: int) -> None:
    body = os.urandom(size)
    assert ask(gateway, 1, body=body) == [(200, ANSWER)]
    wait_until(lambda: asked(gateway))
    assert asked(gateway)[0].partition(b"\r\n\r\n")[2] == body
    assert list((gateway.folder / "work" / "temp" / "body").rglob("*")) == []


def test_a_body_in_chunks_arrives_with_a_length(gateway: Gateway) -> None:
    assert requests.post(f"{gateway.url}/predict", (piece for piece in (b"pho", b"to")), timeout=10).content == ANSWER
    wait_until(lambda: asked(gateway))
    assert asked(gateway)[0].endswith(b"Content-Length: 5\r\n\r\nphoto")


def test_nothing_is_asked_twice_where_no_candidate_is_named(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        assert ask(gateway, 50) == [(200, ANSWER)] * 50
        time.sleep(0.5)
        assert len(gateway.upstream.seen) == len(asked(gateway, LIVE)) == 50


def test_the_rule_that_chooses_requests_is_the_one_that_the_comparison_knows(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_SHADOW="2.1.0") as gateway, requests.Session() as session:
        names = [f"photo-{number}" for number in range(500)]
        for name in names:
            session.post(f"{gateway.url}/predict", b"photo", headers={"X-Request-Id": name}, timeout=10)
        chosen = {name for name in names if is_chosen(name, 10)}
        wait_until(lambda: len(asked(gateway)) >= len(chosen))
        time.sleep(0.3)
        ids = [
            line[14:].decode() for seen in asked(gateway) for line in seen.split(b"\r\n") if line.startswith(b"X-Request-Id: ")
        ]
    assert sorted(ids) == sorted(chosen)
    assert 25 <= len(chosen) <= 80


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", LIVE, b""), ("POST", LIVE, b""), ("POST", "/explanations/petclf", b"photo"), ("POST", "/predictions/petclf/2.0.0", b"photo"),
        ("POST", "/predictions/other", b"photo"), ("GET", "/", b""), ("GET", "/health", b""),
    ],
)  # fmt: skip
def test_only_questions_to_the_default_version_are_asked_twice(gateway: Gateway, method: str, path: str, body: bytes) -> None:
    assert requests.request(method, gateway.url + path, data=body, timeout=10).status_code == 200
    time.sleep(0.3)
    assert len(gateway.upstream.seen) == 1
    assert asked(gateway) == []


@pytest.mark.parametrize("status", [b"400 Bad", b"422 No", b"500 Internal", b"503 Busy"])
def test_what_the_live_version_did_not_answer_the_candidate_is_not_asked(gateway: Gateway, status: bytes) -> None:
    gateway.upstream.status = status
    requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
    time.sleep(0.3)
    assert asked(gateway) == []


def test_a_candidate_that_has_become_the_live_version_is_not_asked_twice(gateway: Gateway) -> None:
    gateway.upstream.headers = b"x-petclf-version: 2.1.0\r\n"
    assert ask(gateway, 3) == [(200, ANSWER)] * 3
    time.sleep(0.3)
    assert asked(gateway) == []


@pytest.mark.parametrize("candidate", [30.0, None, 0.5], ids=["hangs", "breaks off", "is slow"])
def test_a_bad_candidate_makes_no_client_wait(gateway: Gateway, candidate: float | None) -> None:
    """Neither the request itself, nor the next ones on the same connection, nor others; with one connection an address, too."""
    gateway.upstream.special[CANDIDATE] = candidate
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(gateway, 50), range(4)))
    seconds = time.monotonic() - start
    assert answers == [[(200, ANSWER)] * 50] * 4
    assert seconds < 3
    if candidate:
        assert len(asked(gateway)) <= 8 * max(1, seconds / candidate + 1)


def test_a_hung_candidate_takes_no_connection_of_its_clients_address(tmp_path: Path) -> None:
    """Of two that there are: nginx counts one that was closed for a moment more."""
    with running(tmp_path, GATEWAY_SHADOW="2.1.0", GATEWAY_SHADOW_SHARE="100", GATEWAY_CONNECTIONS="2") as gateway:
        gateway.upstream.special[CANDIDATE] = 5.0
        assert [requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code for _ in range(10)] == [200] * 10


def test_of_large_bodies_one_at_a_time_is_sent_to_the_candidate(gateway: Gateway) -> None:
    gateway.upstream.special[CANDIDATE] = 2.0
    assert ask(gateway, 3, body=bytes(2_000_000)) == [(200, ANSWER)] * 3
    assert ask(gateway, 3) == [(200, ANSWER)] * 3
    wait_until(lambda: len(asked(gateway)) == 4)


def test_what_became_of_the_questions_is_counted_and_not_among_the_clients(gateway: Gateway) -> None:
    assert ask(gateway, 2) == [(200, ANSWER)] * 2
    wait_until(lambda: counted().get("petclf_gateway_shadow_total answered") == 2)
    gateway.upstream.special[CANDIDATE] = None
    assert ask(gateway, 3) == [(200, ANSWER)] * 3
    wait_until(lambda: counted().get("petclf_gateway_shadow_total failed") == 3)
    gateway.upstream.special[CANDIDATE] = 3.0
    assert ask(gateway, 12) == [(200, ANSWER)] * 12
    wait_until(lambda: counted().get("petclf_gateway_shadow_total answered") == 10)
    assert counted() == {
        "petclf_gateway_requests_total api 200": 17, "petclf_gateway_shadow_total answered": 10,
        "petclf_gateway_shadow_total failed": 3, "petclf_gateway_shadow_total no_room": 4,
    }  # fmt: skip
    log = (gateway.folder / "access.log").read_text().splitlines()
    assert (len(log), [line for line in log if CANDIDATE in line]) == (17, [])
    assert "error" not in (gateway.folder / "gateway.log").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"GATEWAY_SHADOW": "2.1.0; x"}, "error: GATEWAY_SHADOW is no version; write the one in /predictions/petclf/VERSION"),
        ({"GATEWAY_SHADOW": "/models"}, "error: GATEWAY_SHADOW is no version; write the one in /predictions/petclf/VERSION"),
        ({"GATEWAY_SHADOW": "2.1.0", "GATEWAY_SHADOW_SHARE": "0"}, "error: GATEWAY_SHADOW_SHARE is no whole number from 1 to 100"),
        ({"GATEWAY_SHADOW": "2.1.0", "GATEWAY_SHADOW_SHARE": "101"}, "error: GATEWAY_SHADOW_SHARE is no whole number from 1 to 100"),
        ({"GATEWAY_SHADOW": "2.1.0", "GATEWAY_SHADOW_SHARE": "10%"}, "error: GATEWAY_SHADOW_SHARE is no whole number from 1 to 100"),
        ({"GATEWAY_SHADOW": "2.1.0", "PETCLF_SERVER": "nobody.invalid"}, "error: no address is known for nobody.invalid"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_stops_the_start(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    result = subprocess.run(
        [str(ROOT / "deploy" / "gateway" / "start")], capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "GATEWAY_SECRETS": str(tmp_path), "GATEWAY_WORK": str(tmp_path / "work"), "PETCLF_SERVER": "127.0.0.1", **settings},
    )  # fmt: skip
    assert (result.returncode, said in result.stdout, result.stderr) == (2, True, "")


def test_the_logs_of_two_real_versions_are_joined(tmp_path: Path, newer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The released model under two versions, both in fp32: the one that came last is live, the candidate is registered beside it."""
    release = load_params(ROOT / "params.yaml").export.version
    build_archive(ROOT / "pretrained" / "petclf.pt", tmp_path / "petclf.mar")
    serving = start(
        tmp_path / "server", {"petclf.mar": tmp_path / "petclf.mar", newer.name: newer}, {"PETCLF_INT8": "off"}, "--workers", "1"
    )
    (tmp_path / "gateway").mkdir()
    settings = {"GATEWAY_SHADOW": release, "GATEWAY_SHADOW_SHARE": "100", "PETCLF_INFERENCE_PORT": str(serving.port)}
    log = serving.folder / "predictions.jsonl"
    try:
        beside = {"url": "petclf.mar", "initial_workers": "1"}
        requests.post(f"{serving.supervisor}/models", params=beside, timeout=120).raise_for_status()
        with running(tmp_path / "gateway", **settings) as gateway:
            for number in range(40):
                photo = encoded(draw_photo("cat" if number % 2 else "dog", number, (320, 240)), quality=90)
                answer = requests.post(f"{gateway.url}/predict", photo, headers={"Content-Type": "image/jpeg"}, timeout=30)
                assert (answer.status_code, answer.json()["model"]["version"]) == (200, "99.10.0")
            # one line of each version is the known photo's, which the supervisor asks about
            wait_until(lambda: log.read_text(encoding="utf-8").count(f'"version":"{release}"') >= 41)
    finally:
        serving.stop()
    with pytest.raises(SystemExit) as ended:
        shadow.main([str(log), "--candidate", release, "--share", "100", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == 3
    assert (report["live"], report["compared"], report["missing"], report["broken_lines"]) == ("99.10.0", 40, 0, 0)
    assert report["disagreement"]["mean"] == 0
    assert min(report["milliseconds"][version]["p50"] for version in ("99.10.0", release)) > 0
