"""What the probe makes of each answer, and what Prometheus gets to see of it."""

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from handler.model_file import Archive, ModelFile
from scripts.build_archive import MODEL, build_archive
from serving.probe import HELP, Probe, start_metrics

ROOT = Path(__file__).parents[2]
GOLDEN = {"golden": [{"probabilities": [0.4, 0.6]}], "int8": {"golden": [{"probabilities": [0.5, 0.5]}]}}
ARCHIVE = Archive(Path("petclf.mar"), "petclf", "1.3.0", ModelFile(GOLDEN, b"a known photo"))


def answer(cat: float, dog: float, version: str = "1.3.0", confidence: float | None = None) -> bytes:
    sure = max(cat, dog) if confidence is None else confidence
    return json.dumps(
        {"probabilities": {"cat": cat, "dog": dog}, "confidence": sure, "model": {"name": "petclf", "version": version}}
    ).encode()


@dataclass
class Public:
    """What stands where the gateway would: answers as told, and keeps what it got."""

    port: int = 0
    status: int = 200
    body: bytes = answer(0.4, 0.6)
    pieces: int = 1
    pause: float = 0.0  # before each piece of the body
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def public() -> Iterator[Public]:
    told = Public()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # it would keep a connection open

        def setup(self) -> None:
            told.connections += 1
            super().setup()

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            told.requests.append((self.path, dict(self.headers), sent))
            with contextlib.suppress(OSError):  # the probe has given up
                self.send_response(told.status)
                self.send_header("Content-Length", str(len(told.body)))
                self.end_headers()
                size = -(-len(told.body) // told.pieces)
                for begin in range(0, len(told.body), size):
                    time.sleep(told.pause)
                    self.wfile.write(told.body[begin : begin + size])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        told.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield told
        server.shutdown()


def samples(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    return {sample.labels.get("result", sample.name): sample.value for family in families for sample in family.samples}


def after_one(probe: Probe) -> dict[str, float]:
    """Return what Prometheus sees of one probe, without the time that it took."""
    probe.look()
    shown = samples(probe.metrics())
    del shown["petclf_probe_seconds"]
    return shown


def shown_for(result: str) -> dict[str, float]:
    counts = {one: float(one == result) for one in ("right", "wrong", "refused", "failed")}
    return {"petclf_probe_success": float(result == "right"), **counts}


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, answer(0.4, 0.6), "right"),
        (200, answer(0.415, 0.585), "right"),  # as near as another machine comes
        (200, answer(0.51, 0.49), "right"),  # by the int8 form
        (200, answer(0.3, 0.7), "wrong"),
        (200, answer(0.3, 0.7, version="1.4.0"), "right"),  # another version during a switch: its right answer is not known here
        (200, answer(0.3, 0.8, version="1.4.0"), "wrong"),
        (200, answer(0.3, 0.7, version="1.4.0", confidence=0.3), "wrong"),
        (200, b'{"label": "cat"}', "wrong"),
        (200, b"[1]", "wrong"),
        (200, b"<title>a captive portal</title>", "wrong"),
        (200, b"", "wrong"),
        (429, b'{"error": {"code": "too_many_requests"}}', "refused"),
        (503, b'{"error": {"code": "busy"}}', "refused"),
        (500, b'{"error": {"code": "internal_error"}}', "failed"),
        (504, b"", "failed"),
        (401, b"", "failed"),
        (301, answer(0.4, 0.6), "failed"),
        (404, answer(0.4, 0.6), "failed"),
    ],
)
def test_every_answer_has_its_result(public: Public, status: int, body: bytes, result: str) -> None:
    public.status, public.body = status, body
    assert after_one(Probe(public.url, ARCHIVE)) == shown_for(result)


def test_where_nobody_listens_the_probe_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert after_one(Probe(f"http://127.0.0.1:{port}", ARCHIVE)) == shown_for("failed")


def test_a_connection_that_ends_without_an_answer_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        assert after_one(Probe(f"http://127.0.0.1:{listener.getsockname()[1]}", ARCHIVE)) == shown_for("failed")


@pytest.mark.parametrize("pieces", [1, 4], ids=["silence", "a trickle"])
def test_an_answer_that_comes_too_late_is_a_failure_however_right(public: Public, pieces: int) -> None:
    public.pieces, public.pause = pieces, 1.0 / pieces
    probe = Probe(public.url, ARCHIVE, seconds=0.5)
    assert after_one(probe) == shown_for("failed")
    assert probe.took >= 0.5


def test_each_probe_sends_the_known_photo_over_a_connection_of_its_own(public: Public) -> None:
    probe = Probe(f"{public.url}/below/", ARCHIVE)
    for _ in range(3):
        probe.look()
    asked = [(path, headers["Content-Type"], "Authorization" in headers, body) for path, headers, body in public.requests]
    assert asked == [("/below/predictions/petclf", "image/png", False, b"a known photo")] * 3
    assert public.connections == 3
    assert probe.counts == {"right": 3, "wrong": 0, "refused": 0, "failed": 0}


def test_the_key_comes_from_the_environment_or_from_a_file_that_may_change(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    probe = Probe(public.url, ARCHIVE)

    def key() -> str:
        probe.look()
        return base64.b64decode(public.requests[-1][1]["Authorization"].removeprefix("Basic ")).decode()

    monkeypatch.setenv("PETCLF_API_KEY", "probe:of the environment")
    assert key() == "probe:of the environment"
    monkeypatch.setenv("PETCLF_PROBE_KEY_FILE", str(file))
    file.write_text("probe:first\n", encoding="utf-8")
    assert key() == "probe:first"
    file.write_text("probe:second\n", encoding="utf-8")
    assert key() == "probe:second"
    file.unlink()
    probe.look()
    assert (probe.last, len(public.requests)) == ("failed", 3)


def test_only_a_change_of_the_result_is_logged(public: Public, capsys: pytest.CaptureFixture[str]) -> None:
    probe = Probe(public.url, ARCHIVE)
    for public.status in (200, 200, 429, 429, 503, 200):
        probe.look()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["logger"], line["level"], line["message"].partition(":")[0]) for line in lines] == [
        ("probe", "INFO", "right"),
        ("probe", "WARNING", "refused"),
        ("probe", "INFO", "right"),
    ]


def test_every_metric_has_a_help_text_and_the_counters_begin_at_zero() -> None:
    probe = Probe("http://127.0.0.1:8080", ARCHIVE)
    families = {family.name: (family.documentation, family.type) for family in text_string_to_metric_families(probe.metrics())}
    assert families == {
        name.removesuffix("_total"): (words, "counter" if name.endswith("_total") else "gauge") for name, words in HELP.items()
    }
    assert samples(probe.metrics()) == {
        "petclf_probe_success": 0,
        "petclf_probe_seconds": 0,
        "right": 0,
        "wrong": 0,
        "refused": 0,
        "failed": 0,
    }


def test_prometheus_cannot_read_a_probe_that_does_not_look_any_more(public: Public) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    probe = Probe(public.url, ARCHIVE)
    start_metrics(f"127.0.0.1:{port}", probe)

    def status(path: str = "/metrics") -> Any:
        with contextlib.suppress(urllib.error.HTTPError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return response.status, samples(response.read().decode())["right"]
        return "an error"

    assert status() == "an error"  # it has not looked yet
    probe.look()
    assert status() == (200, 1)
    assert status("/") == "an error"
    probe.finished -= 31
    assert status() == "an error"


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=petclf.example -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.crt")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    with tls_server(tmp_path) as port:
        url = f"https://127.0.0.1:{port}"
        assert after_one(Probe(url, ARCHIVE)) == shown_for("failed")
        assert after_one(Probe(url, ARCHIVE, ca=str(tmp_path / "tls.crt"))) == shown_for("right")
        assert after_one(Probe(f"https://localhost:{port}", ARCHIVE, ca=str(tmp_path / "tls.crt"))) == shown_for("failed")


@contextlib.contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Answer every connection once, right, over TLS."""
    import ssl

    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    body = answer(0.4, 0.6)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with plain, contextlib.suppress(OSError), trusted.wrap_socket(plain, server_side=True) as connection:
                read_request(connection)  # whole: a connection that ends with bytes unread is reset, and the answer may be lost
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def read_request(connection: socket.socket) -> None:
    with connection.makefile("rb") as request:
        request.readline()
        request.read(int(http.client.parse_headers(request)["Content-Length"]))


def start(**settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving.probe"], cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"PETCLF_PROBE_ARCHIVE": "nowhere.mar"}, "nowhere.mar cannot be read"),
        ({"PETCLF_PROBE_ARCHIVE": "pyproject.toml"}, "pyproject.toml is no archive of petclf"),
        ({"PETCLF_PROBE_URL": "localhost:8080"}, "PETCLF_PROBE_URL is localhost:8080; write it like http://127.0.0.1:8080"),
        ({"PETCLF_PROBE_LISTEN": "127.0.0.1"}, "PETCLF_PROBE_LISTEN is 127.0.0.1; write it like 127.0.0.1:8085"),
        ({"PETCLF_PROBE_SECONDS": "five"}, "PETCLF_PROBE_SECONDS is five; it must be a number above 0"),
        ({"PETCLF_PROBE_CA": "nowhere.crt"}, "PETCLF_PROBE_CA is nowhere.crt, which is no file"),
    ],
)
def test_a_wrong_setting_ends_the_probe_with_its_reason(settings: dict[str, str], reason: str, archive: Path) -> None:
    process = start(**{"PETCLF_PROBE_ARCHIVE": str(archive), **settings})
    said, _ = process.communicate(timeout=60)
    [line] = [json.loads(line) for line in said.splitlines()]
    assert (process.returncode, line["level"]) == (2, "ERROR")
    assert reason in line["message"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "petclf.mar"
    build_archive(MODEL, path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_looks_again_and_again_until_it_is_told_to_end(public: Public, archive: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    public.body = answer(0.4, 0.6, version="99.0.0")
    process = start(
        PETCLF_PROBE_URL=public.url,
        PETCLF_PROBE_ARCHIVE=str(archive),
        PETCLF_PROBE_LISTEN=f"127.0.0.1:{port}",
        PETCLF_PROBE_SECONDS="0.1",
    )
    end = time.monotonic() + 60
    while len(public.requests) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    [line] = [json.loads(line) for line in said.splitlines()]
    assert (process.returncode, line["message"].partition(":")[0]) == (0, "right")
    assert len(public.requests) >= 3
