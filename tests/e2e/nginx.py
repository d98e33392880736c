"""The shipped gateway as a real nginx, and a server to stand behind it that only writes down what it gets."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ROOT, free_port, wait_until

LUA = Path("/usr/share/nginx/modules/ngx_http_lua_module.so")
NGINX = (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")) if LUA.exists() else None
HOW_TO_GET_NGINX = "no nginx with its Lua module here; Debian: apt-get install nginx libnginx-mod-http-lua"
ANSWER = b'{"label":"cat"}'


@dataclass
class Upstream:
    """What stands where TorchServe would: keeps every byte, answers as told by the body."""

    port: int
    seen: list[bytes] = field(default_factory=list)
    status: bytes = b"200 OK"
    body: bytes = ANSWER
    headers: bytes = b""
    slow: float = 0.0
    connections: int = 0
    special: dict[str, bytes | float | None] = field(default_factory=dict)  # by path: the body, the wait, or no answer at all

    def last(self) -> tuple[str, dict[str, str], bytes]:
        head, _, body = self.seen[-1].partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return first, dict(line.split(": ", 1) for line in lines), body

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    data += piece
                head, _, rest = data.partition(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
                while len(rest) < length:
                    rest += connection.recv(65536)
                self.seen.append(head + b"\r\n\r\n" + rest[:length])
                data = rest[length:]
                special = self.special.get(head.split(b" ", 2)[1].decode(), self.slow)
                if special is None:
                    return
                time.sleep(special if isinstance(special, float) else self.slow)
                body = special if isinstance(special, bytes) else self.body
                connection.sendall(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nx-request-id: theirs\r\nPragma: no-cache\r\n%bContent-Length: %d\r\n\r\n%b"
                    % (self.status, self.headers, len(body), b"" if head.startswith(b"HEAD") else body)
                )


@dataclass
class Gateway:
    port: int
    management_port: int
    folder: Path
    secrets: Path
    upstream: Upstream
    process: subprocess.Popen[bytes]
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    def raw(self, request: bytes, wait: float = 2.0, port: int = 0) -> bytes:
        """Send bytes as they are, and return what comes back."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=wait) as connection:
            connection.sendall(request)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := connection.recv(65536):
                    received += piece
            return received

    def logged(self, request_id: str) -> dict[str, Any]:
        """The log's entry of a request; nginx writes it when the answer is out, so it may take a moment to appear."""
        wait_until(lambda: self.entries(request_id))
        [entry] = self.entries(request_id)
        return entry

    def entries(self, request_id: str) -> list[dict[str, Any]]:
        lines = (self.folder / "access.log").read_text(encoding="utf-8").splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if entry["request_id"] == request_id]


@contextlib.contextmanager
def listening(address: str = "127.0.0.1", port: int = 0) -> Iterator[Upstream]:
    with socket.create_server((address, port)) as listener:
        upstream = Upstream(listener.getsockname()[1])
        threading.Thread(target=upstream.serve, args=(listener,), daemon=True).start()
        yield upstream


@contextlib.contextmanager
def running(folder: Path, prepare: Any = None, **environment: str) -> Iterator[Gateway]:
    """Run the gateway; without other ports in `environment`, everything behind it is one Upstream."""
    with listening() as upstream, in_front_of(upstream, folder, prepare, **environment) as gateway:
        yield gateway


@contextlib.contextmanager
def in_front_of(upstream: Upstream, folder: Path, prepare: Any, **environment: str) -> Iterator[Gateway]:
    secrets = folder / "secrets"
    secrets.mkdir()
    write_key(secrets / "management.htpasswd", "operator", "open sesame")
    if prepare:
        prepare(secrets)
    port, management_port = free_port(), free_port()
    settings = {
        "GATEWAY_WORK": str(folder / "work"), "GATEWAY_SECRETS": str(secrets), "GATEWAY_LISTEN": "127.0.0.1",
        "GATEWAY_PORT": str(port), "GATEWAY_MANAGEMENT_PORT": str(management_port), "GATEWAY_LOG": str(folder / "access.log"),
        "GATEWAY_USER": "root" if os.getuid() == 0 else "",
        "PETCLF_SERVER": "127.0.0.1", "PREDICTION_LOG": str(folder / "predictions.jsonl"), "GATEWAY_RATE": "10000", "GATEWAY_BURST": "10000", "GATEWAY_CONNECTIONS": "500",
        **{name: str(upstream.port) for name in ("PETCLF_INFERENCE_PORT", "PETCLF_MANAGEMENT_PORT", "PETCLF_READY_PORT")}, **environment,
    }  # fmt: skip
    with (folder / "gateway.log").open("wb") as output:
        process = subprocess.Popen(
            [str(ROOT / "deploy" / "gateway" / "start")], stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **settings, "PATH": f"{Path(NGINX or '').parent}:{os.environ['PATH']}"},
        )  # fmt: skip
    gateway = Gateway(port, management_port, folder, secrets, upstream, process)

    def listens() -> bool:
        """Not whether somebody takes connections: `nginx -t`, which looks at the configuration first, does so for a moment too."""
        assert process.poll() is None, (folder / "gateway.log").read_text()
        number = folder / "work" / "nginx.pid"
        return number.exists() and number.read_text().strip() != ""

    wait_until(listens)
    try:
        yield gateway
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(10)


def write_key(path: Path, name: str, secret: str, salt: bytes = b"saltsalt") -> None:
    digest = base64.b64encode(hashlib.sha1(secret.encode() + salt).digest() + salt).decode()
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{name}:{{SSHA}}{digest}\n")
