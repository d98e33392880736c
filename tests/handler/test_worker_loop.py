"""What stands where TorchServe's loop gets its next batch: reads at once, does afterwards what can wait."""

import logging
import socket
import struct
import sys
import threading
import weakref
from types import ModuleType

import pytest
from ts.protocol.otf_message_handler import retrieve_msg

from handler.worker_loop import WorkerLoop, after_answers, do


def text(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def request(identity: bytes, body: bytes) -> bytes:
    """Return a request as TorchServe's frontend writes it."""
    end = struct.pack("!i", -1)
    headers = b"".join(text(name) + text(value) for name, value in ((b"Host", b"localhost"), (b"Accept", b"*/*")))
    return text(identity) + headers + end + text(b"body") + text(b"image/jpeg") + text(body) + end


def batch(*requests: bytes) -> bytes:
    return b"I" + b"".join(requests) + struct.pack("!i", -1)


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
    loop = WorkerLoop(retrieve_msg)
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
        _, message = WorkerLoop(retrieve_msg).next_batch(worker)
        sender.join()
    assert message[0]["parameters"][0]["value"] == photo


def test_when_the_frontend_leaves_the_worker_ends() -> None:
    frontend, worker = socket.socketpair()
    frontend.close()
    with worker, pytest.raises(SystemExit):
        WorkerLoop(retrieve_msg).next_batch(worker)


def test_what_was_left_for_later_is_done_once_before_the_next_batch() -> None:
    done: list[str] = []
    loop = WorkerLoop(lambda _: done.append("read"))
    loop.tasks = [lambda: done.append("first"), lambda: done.append("second")]
    one, other = socket.socketpair()
    with one, other:
        loop.next_batch(one)
        loop.next_batch(one)

    assert done == ["first", "second", "read", "read"]


def test_while_it_waits_nothing_of_the_last_batch_is_kept() -> None:
    class Photo:
        def judge(self) -> None:
            """Be looked at."""

    photo = Photo()
    alive = weakref.ref(photo)
    loop = WorkerLoop(lambda _: alive())
    loop.tasks = [photo.judge]
    del photo
    one, other = socket.socketpair()
    with one, other:
        assert loop.next_batch(one) is None


def test_a_task_that_fails_is_told_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("no space left")

    do(fail)

    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, "what follows an answer failed")]


def test_outside_of_torchserve_a_task_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))

    after_answers()(lambda: done.append("it"))

    assert done == ["it"]


def test_in_torchserve_the_loop_gets_another_way_to_its_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.retrieve_msg = lambda _: "a batch"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    done: list[str] = []

    later = after_answers()
    later(lambda: done.append("it"))
    one, other = socket.socketpair()
    with one, other:
        assert done == []
        assert main.retrieve_msg(one) == "a batch"
    assert done == ["it"]
