"""The client: what it prints, how patient it is, and what its exit code says."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "predict.py"


class Stub(BaseHTTPRequestHandler):
    """A server that does what the photo's bytes tell it to."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server: Any = self.server
        with server.lock:
            server.asked.append((self.path, data, self.headers))
            times = sum(seen == data for _, seen, _ in server.asked)
        if data == "no photo":
            self.send(400, {"error": {"code": "not_an_image", "message": "not a readable image", "request_id": "x"}})
        elif data.startswith("busy") and times <= 2:
            self.send(503, {}, {"Retry-After": "0"})
        elif data == "always busy":
            self.send(429, {"error": {"message": "too many"}}, {"Retry-After": "0"})
        elif data == "cut off" and times == 1:
            self.connection.shutdown(socket.SHUT_RDWR)
        elif data == "unknown version":
            message = "Model version: 9 does not exist for model: petclf"
            self.send(404, {"code": 404, "type": "ModelVersionNotFoundException", "message": message})
        elif data == "moved":
            self.send(301, [], {"Location": "/elsewhere"})
        elif data == "no map" and self.path.startswith("/explanations"):
            self.send(503, {"code": 503, "type": "ServiceUnavailableException", "message": "no worker"})
        elif data == "broken":
            self.send_bytes(200, b"<html>", "application/json")
        elif self.headers.get("Accept") == "image/png":
            self.send_bytes(200, b"\x89PNG picture of " + data.encode(), "image/png")
        else:
            if data == "slow":
                time.sleep(0.3)
            if data == "three labels":
                shares = {"Bengal": 0.0125, "Beagle": 0.0125, "Sphynx (hairless)": 0.975}
                self.send(200, {"label": "Sphynx (hairless)", "confidence": 0.975, "probabilities": shares, "unsure": False})
                return
            unsure = "close_call" if data == "unsure" else None
            label, other = ("dog", "cat") if "dog" in data else ("cat", "dog")
            probabilities = {name: 0.975 if name == label else 0.025 for name in sorted([label, other])}
            self.send(200, {"label": label, "confidence": 0.975, "probabilities": probabilities, "unsure": bool(unsure),
                            "unsure_because": unsure, "model": {"name": "petclf", "version": "1.0.0"}})  # fmt: skip

    def send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(content).encode(), "application/json", headers)

    def send_bytes(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    stub: Any = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    stub.daemon_threads = True
    stub.handle_error = lambda *_: None
    stub.asked, stub.lock = [], threading.Lock()
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    yield stub
    stub.shutdown()
    stub.server_close()


def predict(server: Any, folder: Path, *arguments: str, stdin: bytes = b"", key: str = "") -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{server.server_port}" if server else "http://127.0.0.1:9"
    result = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "--server", address, *arguments], cwd=folder, input=stdin, capture_output=True, check=False,
        env={"PATH": "/usr/bin:/bin", **({"PETCLF_API_KEY": key} if key else {})}, timeout=60,
    )  # fmt: skip
    return subprocess.CompletedProcess(result.args, result.returncode, result.stdout.decode(), result.stderr.decode())


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_text(content)


def test_a_table_in_the_order_of_the_photos(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="slow", b="a dog", c="unsure")
    result = predict(server, tmp_path, "a.jpg", "b.jpg", "c.jpg")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "photo  label  confidence  note\n"
        "a.jpg  cat        97.50%\n"
        "b.jpg  dog        97.50%\n"
        "c.jpg  cat        97.50%  unsure: close call\n"
    )


def test_a_file_gets_every_name_whole_and_columns_as_wide_as_the_labels(server: Any, tmp_path: Path) -> None:
    name = "a" * 60 + ".jpg"
    (tmp_path / name).write_text("three labels")
    result = predict(server, tmp_path, ".")
    assert result.stdout == (f"{'photo':<64}  label              confidence  note\n{name}  Sphynx (hairless)      97.50%\n")


def on_a_terminal(server: Any, folder: Path, *arguments: str, columns: int = 80, **environment: str) -> tuple[str, str]:
    """Return what the client writes on a terminal, and what is seen there at the end: each line as it was last written."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    address = f"http://127.0.0.1:{server.server_port}"
    client = subprocess.Popen(
        [sys.executable, "-I", str(SCRIPT), "--server", address, *arguments], cwd=folder, stdout=theirs, stderr=theirs,
        env={"PATH": "/usr/bin:/bin", "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal's reading with an error
        while piece := os.read(ours, 4096):
            written += piece
    os.close(ours)
    client.wait(timeout=30)
    text = written.decode().replace("\r\n", "\n")
    seen = [re.split(r"\r|\033\[K", line)[-1].rstrip() for line in text.split("\n")]
    return text, "\n".join(line for line in seen if line)


def test_a_terminal_gets_progress_colours_and_a_summary(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="slow", b="a dog", c="unsure", d="no photo")
    text, seen = on_a_terminal(server, tmp_path, ".")
    assert "/4 [" in text  # the bar
    assert seen == (
        "\033[1mphoto  label  confidence  note\033[0m\n"
        "a.jpg  cat        97.50%\n"
        "b.jpg  dog        97.50%\n"
        "\033[33mc.jpg  cat        97.50%  unsure: close call\033[0m\n"
        "\033[31md.jpg  -               -  error: not a readable image\033[0m\n"
        "2 cat, 1 dog; 1 of them unsure\n"
        "1 of 4 photos were not answered"
    )


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(server: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    write(tmp_path, a="unsure")
    text, seen = on_a_terminal(server, tmp_path, "a.jpg", **environment)
    assert "\033" not in text
    assert seen == "photo  label  confidence  note\na.jpg  cat        97.50%  unsure: close call"


def test_a_narrow_terminal_gets_the_end_of_a_long_name(server: Any, tmp_path: Path) -> None:
    (tmp_path / ("b" * 30)).mkdir()
    write(tmp_path / ("b" * 30), end="1")
    _, seen = on_a_terminal(server, tmp_path, "b" * 30, columns=70, NO_COLOR="1")
    assert seen == f"{'photo':<19}  label  confidence  note\n...bbbbbbbb/end.jpg  cat        97.50%"


def test_folders_patterns_lists_and_standard_input(server: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, one="1", two="2")
    write(tmp_path / "sub", three="3")
    (tmp_path / "sub" / "notes.txt").write_text("no photo")

    def names(*arguments: str, stdin: bytes = b"") -> list[str]:
        result = predict(server, tmp_path, "--json", *arguments, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return [json.loads(line)["photo"] for line in result.stdout.splitlines()]

    assert names(".") == ["one.jpg", "sub/three.jpg", "two.jpg"]
    assert names("sub", "*.jpg") == ["sub/three.jpg", "one.jpg", "two.jpg"]
    assert names("-", stdin=b"a photo") == ["-"]
    assert names("--list", stdin=b"two.jpg\n\none.jpg\n") == ["two.jpg", "one.jpg"]


def test_json_and_csv_say_the_same(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="a dog", b="no photo")
    as_json = predict(server, tmp_path, "--json", ".")
    as_csv = predict(server, tmp_path, "--csv", ".")

    assert [json.loads(line) for line in as_json.stdout.splitlines()] == [
        {"photo": "a.jpg", "label": "dog", "confidence": 0.975, "probabilities": {"cat": 0.025, "dog": 0.975}, "unsure": False,
         "unsure_because": None, "model": {"name": "petclf", "version": "1.0.0"}},
        {"photo": "b.jpg", "error": "not a readable image", "code": "not_an_image"},
    ]  # fmt: skip
    assert list(csv.reader(io.StringIO(as_csv.stdout))) == [
        ["photo", "label", "confidence", "probability_cat", "probability_dog", "unsure_because", "version", "error", "code"],
        ["a.jpg", "dog", "0.975", "0.025", "0.975", "", "1.0.0", "", ""],
        ["b.jpg", "", "", "", "", "", "", "not a readable image", "not_an_image"],
    ]
    assert (as_json.returncode, as_json.stderr) == (1, "1 of 2 photos were not answered\n")


def test_csv_has_the_labels_of_the_first_answer_also_after_failures(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="no photo", b="unsure", c="no photo")
    assert list(csv.reader(io.StringIO(predict(server, tmp_path, "--csv", ".").stdout))) == [
        ["photo", "label", "confidence", "probability_cat", "probability_dog", "unsure_because", "version", "error", "code"],
        ["a.jpg", "", "", "", "", "", "", "not a readable image", "not_an_image"],
        ["b.jpg", "cat", "0.975", "0.975", "0.025", "close_call", "1.0.0", "", ""],
        ["c.jpg", "", "", "", "", "", "", "not a readable image", "not_an_image"],
    ]


def test_csv_without_any_answer_has_no_labels(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="no photo")
    assert list(csv.reader(io.StringIO(predict(server, tmp_path, "--csv", ".").stdout))) == [
        ["photo", "label", "confidence", "unsure_because", "version", "error", "code"],
        ["a.jpg", "", "", "", "", "not a readable image", "not_an_image"],
    ]


@pytest.mark.parametrize(
    ("content", "options", "error"),
    [
        ("unknown version", ["--version", "9"], "Model version: 9 does not exist for model: petclf"),
        ("no map", ["--explain", "maps", "--retries", "0"], "no heat map: no worker"),
        ("moved", [], "the server answered 301 Moved Permanently, without a reason"),
    ],
)
def test_the_servers_reason_is_shown(server: Any, tmp_path: Path, content: str, options: list[str], error: str) -> None:
    write(tmp_path, a=content)
    result = predict(server, tmp_path, "a.jpg", "--json", *options)
    assert (result.returncode, json.loads(result.stdout)) == (1, {"photo": "a.jpg", "error": error})


def test_a_busy_server_and_a_cut_connection_are_tried_again(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="busy", b="cut off")
    result = predict(server, tmp_path, ".")
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(data for _, data, _ in server.asked) == ["busy"] * 3 + ["cut off"] * 2


def test_patience_ends(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="fine", b="always busy")
    result = predict(server, tmp_path, ".", "--retries", "2", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout.splitlines()[1]) == {"photo": "b.jpg", "error": "too many"}
    assert sum(data == "always busy" for _, data, _ in server.asked) == 3


def test_a_photo_that_cannot_be_read_stops_no_other(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="1")
    result = predict(server, tmp_path, "/proc/self/mem", "a.jpg")
    assert result.stdout == (
        "photo           label         confidence  note\n"
        "/proc/self/mem  -                      -  error: cannot use /proc/self/mem: Input/output error\n"
        "a.jpg           cat               97.50%\n"
    )
    assert (result.returncode, result.stderr) == (1, "1 of 2 photos were not answered\n")


def test_a_refusal_is_not_tried_again(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="no photo")
    assert predict(server, tmp_path, "a.jpg").returncode == 1
    assert len(server.asked) == 1


def test_labelled_photos_are_answered_with_how_right_the_server_is(server: Any, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    write(tmp_path / "photos" / "cat", a="a cat", b="a dog")
    write(tmp_path / "photos" / "dog", c="a dog", d="no photo")
    as_text = predict(server, tmp_path, "--labelled", "photos")
    as_json = predict(server, tmp_path, "--labelled", "photos", "--json")
    as_csv = predict(server, tmp_path, "--labelled", "photos", "--csv")

    assert as_text.stdout.splitlines()[:2] == [
        "4 photos, 3 answered",
        "accuracy            66.67 % (2 of 3; 95 % interval 20.77 to 93.85 %)",
    ]
    assert json.loads(as_json.stdout)["accuracy"]["count"] == 2
    assert [line["photo"] + " " + line["answer"] for line in csv.DictReader(io.StringIO(as_csv.stdout))] == [
        "cat/a.jpg cat", "cat/b.jpg dog", "dog/c.jpg dog", "dog/d.jpg ",
    ]  # fmt: skip
    for result in (as_text, as_json, as_csv):
        assert (result.returncode, result.stderr) == (1, "1 of 4 photos were not answered\n")


def test_heat_maps_are_written_side_by_side(server: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, same="one")
    write(tmp_path / "sub", same="two")
    result = predict(server, tmp_path, "same.jpg", "sub", "--explain", "out", "--version", "1.0.0")
    assert result.returncode == 0, result.stderr
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {
        "00001_same.png": b"\x89PNG picture of one", "00002_same.png": b"\x89PNG picture of two",
    }  # fmt: skip
    assert {path for path, _, _ in server.asked} == {"/predictions/petclf/1.0.0", "/explanations/petclf/1.0.0"}


def test_a_key_comes_from_the_environment_or_a_file_never_from_the_command(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="1")
    (tmp_path / "key").write_text("shelter:secret\n")
    predict(server, tmp_path, "a.jpg", key="shelter:secret")
    predict(server, tmp_path, "a.jpg", "--key-file", "key")
    assert [headers["Authorization"] for _, _, headers in server.asked] == ["Basic c2hlbHRlcjpzZWNyZXQ="] * 2


def test_connections_stay_open(server: Any, tmp_path: Path) -> None:
    write(tmp_path, **{f"p{number:02d}": f"photo {number}" for number in range(20)})
    accepted = []
    get_request = server.get_request
    server.get_request = lambda: accepted.append(1) or get_request()
    assert predict(server, tmp_path, ".", "--jobs", "2").returncode == 0
    assert len(accepted) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no photo given; name photos, folders, or - for standard input"),
        (["missing.jpg"], "no photo at missing.jpg"),
        (["a.jpg", "--key-file", "missing"], "cannot use missing: No such file or directory"),
        (["a.jpg", "--explain", "a.jpg"], "cannot use a.jpg: File exists"),
        (["a.jpg", "a.jpg", "--labelled"], "--labelled takes one folder or CSV, and neither --list nor --explain"),
        (["a.jpg", "--server", "ftp://x"], "--server ftp://x is no address; write it like http://127.0.0.1:8080"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(server: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
    write(tmp_path, a="1")
    result = predict(server, tmp_path, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {told}\n")


def test_a_server_that_is_away_is_told_once_not_for_every_photo(tmp_path: Path) -> None:
    write(tmp_path, **{f"p{number}": "1" for number in range(40)})
    result = predict(None, tmp_path, ".", "--retries", "0", "--json")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: http://127.0.0.1:9: the server cannot be reached: Connection refused; is it running?\n"


def test_ctrl_c_ends_it_at_once_although_the_server_is_silent(tmp_path: Path) -> None:
    write(tmp_path, a="1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-I", str(SCRIPT), "--server", address, "a.jpg"]
        client = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell lets what it starts with & ignore it
        )  # fmt: skip
        with silent.accept()[0]:
            client.send_signal(signal.SIGINT)
            _, told = client.communicate(timeout=10)  # it would wait 30 s for an answer
    assert (client.returncode, told) == (130, "stopped\n")


def test_an_answer_that_makes_no_sense_is_told(server: Any, tmp_path: Path) -> None:
    write(tmp_path, a="fine", b="broken")
    result = predict(server, tmp_path, ".", "--json")
    assert json.loads(result.stdout.splitlines()[1]) == {
        "photo": "b.jpg",
        "error": "the server's answer is no JSON; is it a petclf server?",
    }


def test_a_python_without_the_packages_is_told_which_one_to_use() -> None:
    result = subprocess.run([sys.executable, "-I", "-S", str(SCRIPT), "a.jpg"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: urllib3 is not installed here; `make setup`, then .venv/bin/python {SCRIPT}\n"
