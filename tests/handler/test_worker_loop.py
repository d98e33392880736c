"""What stands where TorchServe's loop gets its next batch: reads at once, does afterwards what can wait."""

import logging
import socket
import struct
import sys
import threading
from types import ModuleType

import pytest
from ts.protocol.otf_message_handler import retrieve_msg

from handler.worker_loop import MANY, WorkerLoop, in_quiet_moments


def text(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def request(identity: bytes, body: bytes) -> bytes:
    """Return a request as TorchServe's frontend writes it."""
    end = struct.pack("!i", -1)
    headers = b"".join(text(name) + text(value) for name, value in ((b"Host", b"localhost"), (b"Accept", b"*/*")))
    return text(identity) + headers + end + text(b"body") + text(b"image/jpeg") + text(body) + end


def batch(*requests: bytes) -> bytes:
    return b"I" + b"".join(requests) + struct.pack("!i", -1)


@pytest.mark.parametrize("photos", [[b""], [b"photo"], [b"one", b"two" * 100_000, b"three"]])
def test_a_batch_is_read_as_torchserve_reads_it(photos: list[bytes]) -> None:
    sent = batch(*(request(b"id-%d" % index, photo) for index, photo in enumerate(photos)))
    readings = []
    for read in (retrieve_msg, WorkerLoop(refuse, nothing).next_batch):
        frontend, worker = socket.socketpair()
        with frontend, worker:
            sender = threading.Thread(target=frontend.sendall, args=(sent,))
            sender.start()
            readings.append(read(worker))
            sender.join()

    assert readings[0] == readings[1]


def refuse(_: object) -> None:
    raise AssertionError("TorchServe's own reading was asked for a batch")


def nothing() -> None:
    """Have nothing to do."""


def test_an_order_to_load_a_model_is_left_to_torchserve() -> None:
    texts = [text(b"petclf"), text(b"/tmp/petclf"), struct.pack("!i", 8), text(b"petclf_handler.py"), struct.pack("!i", -1)]
    order = b"L" + b"".join(texts) + text(b"") + b"\0"
    frontend, worker = socket.socketpair()
    with frontend, worker:
        frontend.sendall(order + batch(request(b"id", b"photo")))
        loop = WorkerLoop(retrieve_msg, nothing)
        command, message = loop.next_batch(worker)
        then, _ = loop.next_batch(worker)

    assert (command, message["modelName"], message["batchSize"], then) == (b"L", b"petclf", 8, b"I")


@pytest.mark.parametrize("kept", [0, 1, 5, 30, 60])
def test_when_the_frontend_ends_amid_a_batch_the_worker_ends(kept: int) -> None:
    frontend, worker = socket.socketpair()
    with worker:
        with frontend:
            frontend.sendall(batch(request(b"id", b"photo" * 100))[:kept])
        with pytest.raises(SystemExit):
            WorkerLoop(retrieve_msg, nothing).next_batch(worker)


class Counting:
    """A socket that counts how often it is read."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reads = 0

    def makefile(self, mode: str, buffering: int) -> "Counting":
        assert (mode, buffering) == ("rb", 0)
        return self

    def readinto(self, place: memoryview) -> int:
        self.reads += 1
        return self.connection.recv_into(place)

    readable = staticmethod(lambda: True)
    closed = False


def test_a_batch_is_read_with_few_system_calls() -> None:
    frontend, worker = socket.socketpair()
    counting = Counting(worker)
    loop = WorkerLoop(retrieve_msg, nothing)
    with frontend, worker:
        for turn in range(3):
            photos = [bytes([turn, index]) * 20_000 for index in range(3)]
            frontend.sendall(batch(*(request(b"id", photo) for photo in photos)))
            command, message = loop.next_batch(counting)  # type: ignore[arg-type]

            assert command == b"I"
            assert [row["parameters"][0]["value"] for row in message] == photos
    assert counting.reads <= 3 * 3


def test_a_body_larger_than_the_buffer_arrives_whole() -> None:
    frontend, worker = socket.socketpair()
    photo = bytes(range(256)) * 8000
    with frontend, worker:
        sender = threading.Thread(target=frontend.sendall, args=(batch(request(b"id", photo)),))
        sender.start()
        _, message = WorkerLoop(retrieve_msg, nothing).next_batch(worker)
        sender.join()
    assert message[0]["parameters"][0]["value"] == photo


def test_what_was_left_is_done_once_when_nothing_comes_for_a_moment() -> None:
    done: list[str] = []
    loop = WorkerLoop(lambda _: "a batch", lambda: done.append("it"))
    one, other = socket.socketpair()
    with one, other:
        loop.leave(1)
        late = threading.Timer(0.1, other.sendall, [b"L"])
        late.start()
        assert loop.next_batch(one) == "a batch"
        assert done == ["it"]
        loop.next_batch(one)
    assert done == ["it"]


def test_of_a_few_photos_nothing_is_done_while_the_next_one_waits() -> None:
    done: list[str] = []
    loop = WorkerLoop(lambda reader: reader.recv(1), lambda: done.append("it"))
    one, other = socket.socketpair()
    with one, other:
        for _ in range(MANY - 1):
            other.sendall(b"L")
            loop.leave(1)
            loop.next_batch(one)
        assert done == []
        other.sendall(b"L")
        loop.leave(1)
        loop.next_batch(one)
    assert done == ["it"]


def test_when_the_frontend_ends_what_was_left_is_done_first() -> None:
    done: list[str] = []
    loop = WorkerLoop(retrieve_msg, lambda: done.append("it"))
    one, other = socket.socketpair()
    with one:
        other.close()
        loop.leave(1)
        with pytest.raises(SystemExit):
            loop.next_batch(one)
    assert done == ["it"]


def test_work_that_fails_is_told_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("no space left")

    loop = WorkerLoop(lambda _: "a batch", fail)
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"L")
        loop.leave(MANY)
        assert loop.next_batch(one) == "a batch"

    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, "what follows an answer failed")]


def test_outside_of_torchserve_the_work_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))

    in_quiet_moments(lambda: done.append("it"))(1)

    assert done == ["it"]


def test_in_torchserve_the_loop_gets_another_way_to_its_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.retrieve_msg = lambda _: "a batch"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    done: list[str] = []

    leave = in_quiet_moments(lambda: done.append("it"))
    leave(MANY)
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"L")
        assert done == []
        assert main.retrieve_msg(one) == "a batch"
    assert done == ["it"]
