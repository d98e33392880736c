"""A network of the benchmark's own (Linux namespaces): nothing outside can be reached, and names lead where it wants them to.

Names need port 53, a resolver and a public address; here they cost no right on the machine and disturb nobody on it.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.attackers import DEAD, INSIDE, REBIND, REDIRECT, SLOW

ENTERED = "PETCLF_BENCHMARK_NETWORK"
RESOLVER, PUBLIC, PRIVATE = "127.0.0.53", "93.184.215.14", "127.0.0.1"
NAMES = (DEAD, SLOW, REDIRECT, INSIDE, REBIND)


def enter(module: str, arguments: list[str]) -> str:
    """Start this program again in a network of its own; returns why there is none, nothing once we are in it."""
    if os.environ.get(ENTERED):
        set_up()
        return ""
    program = shutil.which("unshare")
    if program is None:
        return "unshare is not installed"
    command = [program, "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    trial = [*command, sys.executable, "-m", "benchmarks.own_network"]  # some systems let one in, and then change nothing there
    if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        os.execve(program, [*command, sys.executable, "-m", module, *arguments], {**os.environ, ENTERED: "1"})
    return "this user may not set up a network namespace"


def set_up() -> None:
    """Bring loopback up, give it a public address beside its own, and name our resolver."""
    up, loopback, running = 0x1, 0x8, 0x40
    configure(0x8914, "lo", struct.pack("H14x", up | loopback | running))  # SIOCSIFFLAGS
    configure(0x8916, "lo:1", struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(PUBLIC)))  # SIOCSIFADDR
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"nameserver {RESOLVER}\n")
        file.flush()
        Path(file.name).chmod(0o644)
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)


def configure(request: int, interface: str, value: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s", interface.encode()) + value)


@dataclass
class BadHosts:
    """A resolver and the hosts that its names lead to; counts who came to the private address."""

    photo: bytes
    private_visits: int = 0
    turn: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> str | None:
        """Return what the resolver says now; nothing: it knows no such name."""
        if name == REBIND:
            self.turn[name] = self.turn.get(name, 0) + 1
            return PUBLIC if self.turn[name] % 2 else PRIVATE
        return {SLOW: PUBLIC, REDIRECT: PUBLIC, INSIDE: PRIVATE}.get(name)

    def answer(self, query: bytes) -> bytes | None:
        """Return the answer to a query, none to one that is to wait in vain."""
        name, kind = read_query(query)
        if name == DEAD:
            return None
        address = self.address(name) if kind == 1 or name not in NAMES else ""  # IPv6: the name exists, without an address
        code = 0x8183 if address is None else 0x8180
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address) if address else b""
        return query[:2] + struct.pack(">HHHHH", code, 1, int(bool(address)), 0, 0) + question_of(query) + record

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
            ThreadingHTTPServer((PUBLIC, 80), self.handler(private=False)) as public,
            ThreadingHTTPServer((PRIVATE, 80), self.handler(private=True)) as private,
        ):
            resolver.bind((RESOLVER, 53))
            for serve in (public.serve_forever, private.serve_forever, lambda: self.resolve(resolver)):
                threading.Thread(target=serve, daemon=True).start()
            try:
                yield
            finally:
                public.shutdown()
                private.shutdown()

    def resolve(self, resolver: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                query, sender = resolver.recvfrom(512)
                with contextlib.suppress(ValueError, IndexError, struct.error):
                    if answer := self.answer(query):
                        resolver.sendto(answer, sender)

    def handler(self, private: bool) -> type[BaseHTTPRequestHandler]:
        hosts = self

        class Host(BaseHTTPRequestHandler):
            timeout = 20

            def do_GET(self) -> None:
                if private:
                    hosts.private_visits += 1
                name = self.headers.get("Host", "")
                if name == REDIRECT:
                    self.send_response(302)
                    self.send_header("Location", f"http://{INSIDE}/")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(hosts.photo)))
                self.end_headers()
                with contextlib.suppress(OSError):  # whoever asked has gone
                    self.send_slowly() if name == SLOW else self.wfile.write(hosts.photo)

            def send_slowly(self) -> None:
                for byte in hosts.photo:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.5)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Host


def question_of(query: bytes) -> bytes:
    end = query.index(0, 12) + 5
    return query[12:end]


def read_query(query: bytes) -> tuple[str, int]:
    """Return the name that is asked for, and which kind of record."""
    question = question_of(query)
    labels, at = [], 0
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels).lower(), struct.unpack(">H", question[at + 1 : at + 3])[0]


if __name__ == "__main__":
    set_up()
