"""An archive comes into the store only if it is whole and the very one that was asked for."""

import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.build_archive import MODEL, build_archive
from serving import bring_archive
from serving.bring_archive import bring
from serving.say import ServeError
from serving.store import find_archives

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "some.mar"
    build_archive(MODEL, path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "model_store"
    folder.mkdir()
    return folder


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_right_archive_is_there_under_its_own_name(archive: Path, store: Path) -> None:
    path = bring(str(archive), digest_of(archive), store)
    [found] = find_archives(store)
    assert (found.path, files(store)) == (path, [f"petclf-{found.version}.mar"])
    assert path.read_bytes() == archive.read_bytes()


def test_a_pod_that_starts_again_brings_it_again(archive: Path, store: Path) -> None:
    assert bring(str(archive), digest_of(archive), store) == bring(str(archive), digest_of(archive), store)


def test_other_bytes_are_refused_and_leave_nothing_behind(archive: Path, store: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.mar"
    changed.write_bytes(archive.read_bytes() + b"\n")
    with pytest.raises(ServeError) as told:
        bring(str(changed), digest_of(archive), store)
    assert str(told.value) == (
        f"{changed} is not what was asked for: its sha256 is {digest_of(changed)}, PETCLF_ARCHIVE_SHA256 says {digest_of(archive)}"
    )
    assert files(store) == []


def test_what_is_no_archive_is_refused_though_its_digest_is_right(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>")
    with pytest.raises(ServeError, match=r"\.incoming is no archive"):
        bring(str(page), digest_of(page), store)
    assert files(store) == []


@pytest.mark.parametrize(
    ("source", "digest", "told"),
    [
        ("", "0" * 64, "PETCLF_ARCHIVE is ''; write a file's path, or an address that begins with https://"),
        ("http://x/petclf.mar", "0" * 64, "PETCLF_ARCHIVE is 'http://x/petclf.mar'; write a file's path, or an address that begins with https://"),
        ("petclf.mar", "sha256:1", "PETCLF_ARCHIVE_SHA256 is 'sha256:1'; write the 64 digits that `sha256sum ARCHIVE` prints"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(store: Path, source: str, digest: str, told: str) -> None:
    with pytest.raises(ServeError) as error:
        bring(source, digest, store)
    assert str(error.value) == told


def test_more_than_an_archive_has_is_not_read_to_its_end(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_archive, "MOST_BYTES", 10)
    large = tmp_path / "large.mar"
    large.write_bytes(bytes(11))
    with pytest.raises(ServeError, match="it has more than 10 bytes, which no archive has"):
        bring(str(large), digest_of(large), store)
    assert files(store) == []


@pytest.fixture
def address(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An https address of the archive, whose certificate is trusted here."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with; Debian: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(archive.parent))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handlers = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(certificate)))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handlers)
    monkeypatch.setattr(urllib.request, "_opener", opener)
    yield f"https://localhost:{server.server_port}/{archive.name}"
    server.shutdown()
    server.server_close()


def test_an_archive_comes_by_https(archive: Path, store: Path, address: str) -> None:
    assert bring(address, digest_of(archive), store).read_bytes() == archive.read_bytes()
    with pytest.raises(ServeError, match="HTTP Error 404"):
        bring(f"{address}x", digest_of(archive), store)


def test_the_command_says_what_it_did_and_ends_with_2_when_it_could_not(archive: Path, store: Path, tmp_path: Path) -> None:
    def brought(**settings: str) -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, "-m", "serving.bring_archive", str(store)],
            cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.stderr == ""
        return result.returncode, json.loads(result.stdout)["message"]

    digest, missing = digest_of(archive), tmp_path / "missing.mar"
    code, told = brought(PETCLF_ARCHIVE=str(missing), PETCLF_ARCHIVE_SHA256=digest)
    assert (code, told) == (
        2, f"the archive cannot be used: {missing} cannot be brought into {store}: [Errno 2] No such file or directory: '{missing}'",
    )  # fmt: skip
    code, told = brought(PETCLF_ARCHIVE=str(archive), PETCLF_ARCHIVE_SHA256=digest)
    assert (code, told) == (0, f"{files(store)[0]} is in place")
