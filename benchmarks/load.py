"""Ask a server: over a number of connections as fast as it answers, or at a constant rate whether it answers or not.

At a constant rate an answer's time counts from when its request was due, not from when it was sent: a server that holds
requests up cannot hide it (no coordinated omission).
"""

import argparse
import base64
import contextlib
import json
import select
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

FORMS = {"raw": "image/jpeg", "frame": "application/json", "file": "multipart/form-data; boundary=petclf"}
OPEN_AT_MOST = 1000  # connections, when asked at a constant rate
MOST_AT_ONCE = 1 << 18  # bytes
SECONDS = 30  # to wait for answers after the end


def as_body(photo: bytes, form: str) -> bytes:
    """Return a photo as the server takes it: as it is, as a form's file, or in a data frame of MLflow's."""
    if form == "raw":
        return photo
    if form == "file":
        head = b'--petclf\r\nContent-Disposition: form-data; name="photos"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        return head + photo + b"\r\n--petclf--\r\n"
    return json.dumps({"dataframe_split": {"columns": ["photo"], "data": [[base64.b64encode(photo).decode()]]}}).encode()


def as_request(photo: bytes, path: str, form: str) -> bytes:
    body = as_body(photo, form)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORMS[form]}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection:
    """One connection that stays open, with one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.unsent = memoryview(b"")
        self.due: float | None = None  # of the request that is not answered yet
        self.reusable = True

    def send(self) -> bool:
        """Send what the system takes; returns whether there is more."""
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        return bool(self.unsent)

    def receive(self) -> int | None:
        """Return the status of a whole answer, or nothing as long as some of it is missing."""
        data = self.socket.recv(MOST_AT_ONCE)
        if not data:
            raise ConnectionError("closed without an answer")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.received[:end]).lower()
        if b"transfer-encoding: chunked" in head:
            whole = self.received.endswith(b"0\r\n\r\n")
        else:
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = len(self.received) >= end + 4 + length
        if not whole:
            return None
        self.received.clear()
        self.reusable = b"connection: close" not in head and not self.unsent  # some refuse before they have read everything
        return int(head[9:12])


@dataclass
class Outcome:
    """What came back: how many with which status, and how long the answered and the refused took."""

    statuses: Counter[str] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def add(self, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        (self.answered if status == "200" else self.refused).append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        return {
            "seconds": seconds,
            "statuses": dict(self.statuses),
            "answered_ms": quantiles(self.answered),
            "refused_ms": quantiles(self.refused),
        }


def quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    points = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in points.items()}


class Load:
    """Requests in turn, for one server: one thread that waits for sockets, so that it takes little from a server beside it."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port, self.requests = port, requests
        self.turn = count()
        self.answered = 0  # in all, in the lead and after the end too
        self.selector = selectors.EpollSelector()
        self.idle: list[Connection] = []
        self.busy: set[Connection] = set()
        self.begin()

    def ask(self, due: float) -> None:
        """Send the next request over a connection that has none, or over a new one."""
        request = self.requests[next(self.turn) % len(self.requests)]
        try:
            connection = self.idle.pop() if self.idle else self.connect()
        except OSError:
            self.outcome.add("connection lost", time.perf_counter() - due)
            return
        connection.due, connection.unsent = due, memoryview(request)
        self.busy.add(connection)
        self.attend(connection, selectors.EVENT_WRITE)

    def connect(self) -> Connection:
        connection = Connection(self.port)
        self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def wait(self, seconds: float) -> None:
        """Let connections send and receive for up to some seconds, until one of them has something to do."""
        select.select([self.selector], [], [], max(0.0, seconds))  # waits exactly; a selector's own waiting, whole milliseconds
        for key, events in self.selector.select(0):
            self.attend(key.data, events)

    def attend(self, connection: Connection, events: int) -> None:
        """Send or receive what can be; note the answer, or that there will be none."""
        try:
            if events & selectors.EVENT_READ and (status := connection.receive()) is not None:
                self.done(connection, str(status), connection.reusable)
            elif events & selectors.EVENT_WRITE:
                more = selectors.EVENT_WRITE if connection.send() else 0
                if more or self.selector.get_key(connection.socket).events & selectors.EVENT_WRITE:
                    self.selector.modify(connection.socket, selectors.EVENT_READ | more, connection)
        except OSError:
            self.done(connection, "connection lost", reusable=False)

    def done(self, connection: Connection, status: str, reusable: bool) -> None:
        if connection.due is not None:
            self.outcome.add(status, time.perf_counter() - connection.due)
            self.answered += status == "200"
        connection.due = None
        self.busy.discard(connection)
        if reusable:
            self.idle.append(connection)
            return
        if connection in self.idle:
            self.idle.remove(connection)
        self.selector.unregister(connection.socket)
        connection.socket.close()

    def closed(self, connections: int, seconds: float, lead: float = 0.0) -> dict[str, Any]:
        """Keep some connections busy: each answer is followed by the next request. What comes within the lead does not count."""
        self.keep_busy(connections, lead)
        self.begin()
        self.keep_busy(connections, seconds)
        return self.summary()

    def begin(self) -> None:
        """Count from here on."""
        self.outcome = Outcome()
        self.started, self.cpu_before = time.perf_counter(), time.process_time()

    def keep_busy(self, connections: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            for _ in range(connections - len(self.busy)):
                self.ask(now)
            self.wait(end - now)

    def constant(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send requests at equal distances, whether those before them are answered or not."""
        return self.scheduled([number / rate for number in range(int(rate * seconds))])

    def scheduled(self, dues: Sequence[float]) -> dict[str, Any]:
        """Send requests when they are due, in seconds from now, whether those before them are answered or not."""
        self.begin()
        sent = 0
        while sent < len(dues):
            due = self.started + dues[sent]
            if (early := due - time.perf_counter()) > 0 or len(self.busy) >= OPEN_AT_MOST:
                self.wait(early if early > 0 else SECONDS)
            else:
                self.ask(due)
                sent += 1
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Tell what came until now; what is answered later is told too, but adds nothing to the rate."""
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu_before
        in_time = len(self.outcome.answered)
        self.finish()
        return {**self.outcome.summary(seconds), "rate": in_time / seconds, "clients_cpu": cpu / seconds}

    def finish(self) -> None:
        """Wait for what is not answered yet, but not for ever."""
        end = time.perf_counter() + SECONDS
        while self.busy and (left := end - time.perf_counter()) > 0:
            self.wait(left)
        for connection in list(self.busy):
            self.done(connection, "timeout", reusable=False)
        for connection in list(self.idle):
            self.done(connection, "", reusable=False)
        self.selector.close()


def read_photos(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--path", default="/predictions/petclf")
    parser.add_argument("--form", choices=FORMS, default="raw")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, help="requests a second, whether they are answered or not")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--lead", type=float, default=0.25, help="seconds over connections before anything counts")
    args = parser.parse_args()
    photos = read_photos(args.photos)
    if not photos:
        sys.exit(f"error: no *.jpg in {args.photos}")
    load = Load(args.port, [as_request(photo, args.path, args.form) for photo in photos])
    result = load.constant(args.rate, args.seconds) if args.rate else load.closed(args.connections, args.seconds, args.lead)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
