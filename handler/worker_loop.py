"""TorchServe's worker loop, helped from outside: a request is read at once, and what can wait is done in quiet moments.

TorchServe 0.12 reads every length, name and value of a request with a system call of its own, about twenty for a photo with two
headers, and takes some two thousand steps of Python for it. And its loop has no place for work that nobody waits for. Both are
mended in the one function that the loop calls for the next batch, by a global name: `retrieve_msg`. It is replaced by one that
does what was left for later when nothing comes for a moment, or when it is much, and reads a batch through a buffer, in few steps.
All else that the frontend may send, which is the order to load a model, TorchServe reads itself.
"""

import io
import logging
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

BUFFER = 1 << 18  # bytes; most photos fit, and a larger one takes a few reads
BATCH = b"I"
LENGTH = struct.Struct("!i")
MANY = 16  # photos whose work is worth doing although the next may wait for it: for many at once it costs a third
QUIET = 0.002  # seconds without a request
Work = Callable[[], None]


class Buffered:
    """A socket, read through a buffer; TorchServe's reading takes it for one."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = io.BufferedReader(connection.makefile("rb", buffering=0), BUFFER)
        self.recv = self.reader.read

    def brings_a_batch(self) -> bool:
        return self.reader.peek(1)[:1] == BATCH

    def batch(self) -> tuple[bytes, list[dict[str, Any]]]:
        """Return what TorchServe's `retrieve_msg` would."""
        command = self.exactly(1)
        return command, [
            {
                "requestId": identity,
                "headers": [{"name": name, "value": self.text()} for name in self.texts()],
                "parameters": [
                    {"name": name.decode(), "contentType": self.text().decode(), "value": self.text()} for name in self.texts()
                ],
            }
            for identity in self.texts()
        ]

    def texts(self) -> Iterator[bytes]:
        """Yield what each item of a list begins with, until the end of the list."""
        while (length := self.length()) >= 0:
            yield self.exactly(length)

    def text(self) -> bytes:
        return self.exactly(self.length())

    def length(self) -> int:
        (length,) = LENGTH.unpack(self.exactly(LENGTH.size))
        return int(length)

    def exactly(self, count: int) -> bytes:
        data = self.reader.read(count)
        if len(data) < count:
            sys.exit(0)  # the frontend has ended; TorchServe's own reading ends the worker so
        return data


class WorkerLoop:
    """Stands where the loop gets its next batch."""

    def __init__(self, retrieve: Callable[[Any], Any], work: Work, many: int = MANY) -> None:
        self.retrieve = retrieve
        self.work = work
        self.many = many
        self.left = 0  # photos that wait for it
        self.buffered: Buffered | None = None

    def leave(self, photos: int) -> None:
        """Note that there is work to do for so many photos more."""
        self.left += photos

    def next_batch(self, connection: socket.socket) -> Any:
        """Do what was left for later, if nothing comes for a moment or if it is much; then wait for the next batch."""
        if self.left >= self.many or (self.left and not select.select([connection], [], [], QUIET)[0]):
            self.catch_up()
        if self.buffered is None or self.buffered.connection is not connection:
            self.buffered = Buffered(connection)
        try:
            return self.buffered.batch() if self.buffered.brings_a_batch() else self.retrieve(self.buffered)
        except SystemExit:  # the frontend has ended, and so will this worker
            self.catch_up()
            raise

    def catch_up(self) -> None:
        """Do what was left for later; answers must go on, whatever goes wrong in it."""
        if not self.left:
            return
        self.left = 0
        try:
            self.work()
        except Exception:
            logger.warning("what follows an answer failed", exc_info=True)


def in_quiet_moments(work: Work, many: int = MANY) -> Callable[[int], None]:
    """Return what to call when there is work for so many photos more; where TorchServe 0.12 does not run it is done at once.

    When there is work for `many`, it does not wait for a quiet moment.
    """
    main = sys.modules["__main__"]
    retrieve = getattr(main, "retrieve_msg", None)
    if retrieve is None:
        return lambda _: work()
    loop = WorkerLoop(retrieve, work, many)
    main.retrieve_msg = loop.next_batch  # type: ignore[attr-defined]
    return loop.leave
