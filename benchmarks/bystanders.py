"""Well-behaved clients that ask at a constant rate while others attack, and what became of their requests.

A request's time counts from when it was due, so a server that holds requests up cannot hide it.
"""

import base64
import contextlib
import http.client
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.load import quantiles

PATIENCE = 20.0  # seconds to wait for an answer
MOST_WAITING = 100  # requests at a time: what a client with that patience needs at the highest rate used


@dataclass(frozen=True)
class Outcome:
    """One request: when it was due (time.monotonic), how long it took, and its status or how it failed."""

    due: float
    seconds: float
    status: str


@dataclass
class Client:
    """Asks the same question again and again; every second request over a connection that stays open."""

    port: int
    rate: float  # requests a second
    path: str
    body: bytes | None = None
    must_hold: bytes = b""  # an answer without these bytes is wrong
    key: str = ""
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    outcomes: list[Outcome] = field(default_factory=list)
    idle: list[http.client.HTTPConnection] = field(default_factory=list)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the end of the block; what is under way then is waited for."""
        over = threading.Event()
        pacer = threading.Thread(target=self.keep_pace, args=(over,))
        pacer.start()
        try:
            yield
        finally:
            over.set()
            pacer.join()
            for connection in self.idle:
                connection.close()
            self.idle.clear()

    def keep_pace(self, over: threading.Event) -> None:
        due, number = time.monotonic(), 0
        with ThreadPoolExecutor(MOST_WAITING) as pool:
            while not over.wait(max(0.0, due - time.monotonic())):
                pool.submit(self.ask, due, number % 2 == 1)
                due, number = due + 1 / self.rate, number + 1

    def ask(self, due: float, kept: bool) -> None:
        connection = self.idle.pop() if kept and self.idle else self.connect()
        status = self.status(connection)
        self.outcomes.append(Outcome(due, time.monotonic() - due, status))
        if kept and status == "200" and connection.sock:
            self.idle.append(connection)
        else:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        source = (self.address, 0)
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, source_address=source, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE, source_address=source)

    def status(self, connection: http.client.HTTPConnection) -> str:
        headers = {"Content-Type": "image/jpeg"} if self.body else {}
        if self.key:
            headers["Authorization"] = f"Basic {base64.b64encode(self.key.encode()).decode()}"
        try:
            connection.request("POST" if self.body else "GET", self.path, self.body, headers)
            with connection.getresponse() as answer:
                body = answer.read()
        except TimeoutError:
            return "timeout"
        except (OSError, http.client.HTTPException):
            return "cut"
        return "wrong" if answer.status == 200 and self.must_hold not in body else str(answer.status)


@dataclass(frozen=True)
class Summary:
    """What became of the requests that were due within some time."""

    count: int
    answered: float  # share of 200
    others: dict[str, int]  # every other status
    ms: dict[str, float]  # p50, p95, p99, max of the answered; empty if none was


def summary(outcomes: list[Outcome]) -> Summary:
    statuses = Counter(one.status for one in outcomes)
    good = statuses.pop("200", 0)
    share = good / len(outcomes) if outcomes else 0.0
    return Summary(len(outcomes), share, dict(statuses), quantiles([one.seconds for one in outcomes if one.status == "200"]))


def hurt_seconds(outcomes: list[Outcome], slowest: float) -> float:
    """Return the time from the first request that failed, or took longer than `slowest` seconds, to the end of the last one."""
    hurt = [one for one in outcomes if one.status != "200" or one.seconds > slowest]
    if not hurt:
        return 0.0
    return max(one.due + one.seconds for one in hurt) - min(one.due for one in hurt)


def within(outcomes: list[Outcome], start: float, end: float) -> list[Outcome]:
    return [one for one in list(outcomes) if start <= one.due < end]
