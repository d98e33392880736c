"""Ask a server: over a number of connections as fast as it answers, or at a constant rate whether it answers or not.

At a constant rate an answer's time counts from when its request was due, not from when it was sent: a server that holds
requests up cannot hide it (no coordinated omission).
"""

import argparse
import asyncio
import base64
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

FORMS = {"raw": "image/jpeg", "frame": "application/json", "file": "multipart/form-data; boundary=petclf"}
OPEN_AT_MOST = 1000  # connections, when asked at a constant rate
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


class Connection(asyncio.Protocol):
    """One connection that stays open, with one request at a time."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self.answer = asyncio.get_running_loop().create_future()
        if self.transport.is_closing():
            self.answer.set_exception(ConnectionError("closed"))
        else:
            self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.received[:end]).lower()
        if b"transfer-encoding: chunked" in head:
            whole = self.received.endswith(b"0\r\n\r\n")
        else:
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = len(self.received) >= end + 4 + length
        if whole and self.answer and not self.answer.done():
            self.answer.set_result((int(head[9:12]), bytes(self.received[end + 4 :])))
            self.received.clear()
            if b"connection: close" in head:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed without an answer"))


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
            "rate": len(self.answered) / seconds,
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
    """Requests in turn, for one server."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port, self.requests = port, requests
        self.turn = count()
        self.outcome = Outcome()

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return connection

    async def ask(self, connection: Connection | None, due: float) -> Connection | None:
        """Send the next request and note what became of it; returns the connection if it can be used again."""
        try:
            connection = connection or await self.connect()
            request = self.requests[next(self.turn) % len(self.requests)]
            status, _ = await connection.ask(request)
        except asyncio.CancelledError:
            self.outcome.add("timeout", time.perf_counter() - due)
            raise
        except OSError:
            self.outcome.add("connection lost", time.perf_counter() - due)
            return None
        self.outcome.add(str(status), time.perf_counter() - due)
        return None if connection.transport.is_closing() else connection

    async def closed(self, connections: int, seconds: float) -> dict[str, Any]:
        started = time.perf_counter()

        async def go_on() -> None:
            connection = None
            while (now := time.perf_counter()) < started + seconds:
                connection = await self.ask(connection, now)
            if connection:
                connection.transport.close()

        await self.finish({asyncio.create_task(go_on()) for _ in range(connections)}, seconds)
        return self.outcome.summary(time.perf_counter() - started)

    async def finish(self, tasks: "set[asyncio.Task[None]]", seconds: float) -> None:
        """Wait for the tasks, and for what is still not answered long after its time no longer."""
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds + SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def constant(self, rate: float, seconds: float) -> dict[str, Any]:
        idle: list[Connection] = []
        room = asyncio.Semaphore(OPEN_AT_MOST)
        tasks: set[asyncio.Task[None]] = set()
        started = time.perf_counter()

        async def one(due: float) -> None:
            async with room:
                connection = await self.ask(idle.pop() if idle else None, due)
                if connection:
                    idle.append(connection)

        for index in range(int(rate * seconds)):
            due = started + index / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        offered = time.perf_counter() - started
        await self.finish(tasks, 0)
        for connection in idle:
            connection.transport.close()
        return self.outcome.summary(offered)


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
    args = parser.parse_args()
    photos = read_photos(args.photos)
    if not photos:
        sys.exit(f"error: no *.jpg in {args.photos}")
    load = Load(args.port, [as_request(photo, args.path, args.form) for photo in photos])
    run = load.constant(args.rate, args.seconds) if args.rate else load.closed(args.connections, args.seconds)
    print(json.dumps(asyncio.run(run)))


if __name__ == "__main__":
    main()
