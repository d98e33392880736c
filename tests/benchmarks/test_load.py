"""The load generator counts what came back, and times it from when it was due."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.load import Load, as_body, as_request, quantiles

BODY = b'{"label":"cat"}'


class Stub:
    """A server that answers one request after another, as slowly as it is told to."""

    def __init__(self, status: int = 200, seconds: float = 0.0, chunked: bool = False, cut: bool = False) -> None:
        self.status, self.seconds, self.chunked, self.cut = status, seconds, chunked, cut
        self.turn = threading.Lock()
        self.seen: list[bytes] = []

    def talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
            while first := reader.readline():
                head = first + b"".join(iter(reader.readline, b"\r\n"))
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.seen.append(head + b"\r\n" + reader.read(length))
                if self.cut:
                    return
                with self.turn:
                    time.sleep(self.seconds)
                if self.chunked:
                    tail = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
                else:
                    tail = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
                connection.sendall(b"HTTP/1.1 %d X\r\n%b" % (self.status, tail))


@contextlib.contextmanager
def serving(stub: Stub) -> Iterator[int]:
    talks: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                talks.append(threading.Thread(target=stub.talk, args=(listener.accept()[0],)))
                talks[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for talk in talks:
        talk.join()


def run(stub_options: dict[str, Any], ask: Callable[[Load], dict[str, Any]]) -> tuple[dict[str, Any], Stub]:
    stub = Stub(**stub_options)
    with serving(stub) as port:
        return ask(Load(port, [as_request(b"photo", "/predict", "raw")])), stub


@pytest.mark.parametrize("chunked", [False, True])
def test_over_connections_each_answer_is_followed_by_the_next_request(chunked: bool) -> None:
    result, stub = run({"seconds": 0.005, "chunked": chunked}, lambda load: load.closed(3, 0.5))

    assert result["statuses"] == {"200": len(stub.seen)}
    assert 0 <= len(stub.seen) - result["rate"] * result["seconds"] <= 3.01  # those that were on their way at the end
    assert stub.seen[0].startswith(b"POST /predict HTTP/1.1\r\n")
    assert stub.seen[0].endswith(b"\r\n\r\nphoto")


def test_what_comes_in_the_lead_does_not_count() -> None:
    result, stub = run({"seconds": 0.01}, lambda load: load.closed(1, 0.3, lead=0.3))

    assert result["seconds"] == pytest.approx(0.3, abs=0.1)
    assert sum(result["statuses"].values()) < 0.75 * len(stub.seen)


def test_a_refusal_is_no_answer() -> None:
    result, stub = run({"status": 503}, lambda load: load.closed(2, 0.2))

    assert result["rate"] == 0
    assert result["statuses"] == {"503": len(stub.seen)}
    assert result["answered_ms"] == {}


def test_a_cut_connection_is_counted_as_lost() -> None:
    result, _ = run({"cut": True}, lambda load: load.closed(1, 0.2))

    assert set(result["statuses"]) == {"connection lost"}


def test_at_a_constant_rate_a_slow_server_cannot_hide_that_requests_wait() -> None:
    """20 requests due within a second, 0.1 seconds each, one at a time: the last is due at 0.95 and answered at 2."""
    result, _ = run({"seconds": 0.1}, lambda load: load.constant(20, 1))

    assert result["statuses"] == {"200": 20}
    assert result["answered_ms"]["max"] > 800
    assert result["rate"] < 12  # the second half was answered after the end


def test_at_a_constant_rate_a_fast_server_gets_just_that_rate() -> None:
    result, _ = run({}, lambda load: load.constant(50, 1))

    assert result["statuses"] == {"200": 50}
    assert result["rate"] == pytest.approx(50, rel=0.2)


def test_it_waits_no_longer_than_it_must() -> None:
    """A selector of the system waits for whole milliseconds: every request would be late by half of one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = Load(listener.getsockname()[1], [])
        waits = []
        for _ in range(50):
            started = time.perf_counter()
            load.wait(0.0002)
            waits.append(time.perf_counter() - started)
        load.finish()

    assert 0.0002 <= min(waits) < 0.001


def test_it_tells_which_part_of_a_core_it_took_itself() -> None:
    result, _ = run({}, lambda load: load.constant(50, 0.2))

    assert 0 < result["clients_cpu"] < 1


def test_quantiles_are_values_that_were_seen() -> None:
    assert quantiles([0.004, 0.001, 0.003, 0.002]) == {"p50": 3.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    assert quantiles([]) == {}


def test_a_photo_is_sent_in_the_form_that_a_server_takes() -> None:
    assert as_body(b"photo", "raw") == b"photo"
    assert as_body(b"photo", "frame") == b'{"dataframe_split": {"columns": ["photo"], "data": [["cGhvdG8="]]}}'
    assert b'name="photos"; filename=' in as_body(b"photo", "file")
