"""TorchServe's worker loop, helped from outside: a request is read at once, and what can wait is done after the answer.

TorchServe 0.12 reads every length, name and value of a request with a system call of its own, about twenty for a photo with two
headers. And its loop has no place for work that nobody waits for. Both are mended in the one function that the loop calls for the
next batch, by a global name: `retrieve_msg`. It is replaced by one that first does what was left for later, then reads through a
buffer.
"""

import io
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

BUFFER = 1 << 18  # bytes; most photos fit, and a larger one takes a few reads
Task = Callable[[], None]


class Buffered:
    """What TorchServe's reading takes for a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.recv = io.BufferedReader(connection.makefile("rb", buffering=0), BUFFER).read


class WorkerLoop:
    """Stands where the loop gets its next batch."""

    def __init__(self, retrieve: Callable[[Any], Any]) -> None:
        self.retrieve = retrieve
        self.tasks: list[Task] = []
        self.buffered: Buffered | None = None

    def next_batch(self, connection: socket.socket) -> Any:
        """Do what was left for after the answer; then wait for the next batch."""
        while self.tasks:  # one that is done keeps nothing while the worker waits: a batch may be 80 MB
            do(self.tasks.pop(0))
        if self.buffered is None or self.buffered.connection is not connection:
            self.buffered = Buffered(connection)
        return self.retrieve(self.buffered)


def do(task: Task) -> None:
    """Answers must go on, whatever goes wrong beside them."""
    try:
        task()
    except Exception:
        logger.warning("what follows an answer failed", exc_info=True)


def after_answers() -> Callable[[Task], None]:
    """Return what takes a task to do after the present answer is out; at once where no loop of TorchServe 0.12 runs."""
    main = sys.modules["__main__"]
    retrieve = getattr(main, "retrieve_msg", None)
    if retrieve is None:
        return do
    loop = WorkerLoop(retrieve)
    main.retrieve_msg = loop.next_batch  # type: ignore[attr-defined]
    return lambda task: loop.tasks.append(task)
