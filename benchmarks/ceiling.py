"""The most that these cores can give: reading photos and the model in one process a core, and nothing else.

With --rate, the least that a photo can take when so many come a second: a pipe is the queue, and whoever is free answers what waits
in it, up to a batch. No server can be better.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from benchmarks.load import quantiles, read_photos
from benchmarks.peers.core import Core
from benchmarks.systems import ONE_THREAD

WARM_UP = 20  # batches of each size
START_SECONDS = 120  # until all processes are there; a machine may be busy
SOON = 0.1  # seconds until all processes have heard of it
ASKED = struct.Struct("=dI")  # when a photo is due, and which one


class Process:
    """What one of the processes knows: the model and the photos."""

    photos: list[bytes]
    core: Core
    all_there: Barrier

    @classmethod
    def start(cls, photos: list[bytes], batch: int, all_there: Barrier) -> None:
        cls.photos, cls.core, cls.all_there = photos, Core(), all_there
        for size in (batch, 1):
            for _ in range(WARM_UP):
                cls.core.answer_all(photos[:size])

    @classmethod
    def work(cls, batch: int, seconds: float, begin: float) -> float:
        """Answer batches for some seconds, beginning when all processes do; returns photos a second."""
        time.sleep(max(0.0, begin - time.monotonic()))
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            cls.core.answer_all([cls.photos[(done + index) % len(cls.photos)] for index in range(batch)])
            done += batch
        return done / (time.perf_counter() - started)

    @classmethod
    def serve(cls, batch: int, queue: Path) -> list[float]:
        """Answer what comes through the queue until its end; returns the seconds that each photo took since it was due."""
        took = list[float]()
        with queue.open("rb", buffering=0) as asked:
            cls.all_there.wait(START_SECONDS)
            while waiting := asked.read(batch * ASKED.size):
                dues, numbers = zip(*ASKED.iter_unpack(waiting), strict=True)
                cls.core.answer_all([cls.photos[number % len(cls.photos)] for number in numbers])
                now = time.perf_counter()
                took += [now - due for due in dues]
        return took


class Ceiling:
    """Processes that are kept, so that they can be asked more than once."""

    def __init__(self, photos: list[bytes], batch: int = 8, processes: int | None = None) -> None:
        self.batch, self.processes = batch, processes or os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        self.all_there = context.Barrier(self.processes + 1)
        with in_environment(ONE_THREAD):
            self.pool = context.Pool(self.processes, Process.start, (photos, batch, self.all_there))

    def __enter__(self) -> "Ceiling":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.pool.terminate()
        self.pool.join()

    def at_most(self, batch: int, seconds: float) -> dict[str, Any]:
        """Answer batches as fast as it goes."""
        begin = time.monotonic() + SOON
        rates = self.pool.starmap(Process.work, [(batch, seconds, begin)] * self.processes, chunksize=1)
        return {"rate": sum(rates), "processes": self.processes, "batch": batch}

    def at_rate(self, rate: float, seconds: float) -> dict[str, Any]:
        """Answer so many a second, whether those before them are answered or not."""
        with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
            os.mkfifo(queue := Path(folder, "queue"))
            kept = os.open(queue, os.O_RDWR)  # a pipe that nobody writes to could not be opened for reading
            serving = self.pool.starmap_async(Process.serve, [(self.batch, queue)] * self.processes, chunksize=1)
            self.all_there.wait(START_SECONDS)  # who opened the pipe after the last photo would wait for ever
            with queue.open("wb", buffering=0) as asked:
                os.close(kept)
                ask(asked, rate, seconds)
            answered = [one for some in serving.get() for one in some]
        summary = {"answered_ms": quantiles(answered), "statuses": {"200": len(answered)}}
        return {"rate": len(answered) / seconds, "processes": self.processes, "batch": self.batch, **summary}


@contextlib.contextmanager
def in_environment(settings: dict[str, str]) -> Iterator[None]:
    """Let what is started here find these settings, and nothing that is started later."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ask(asked: BinaryIO, rate: float, seconds: float) -> None:
    started = time.perf_counter() + SOON
    for number in range(int(rate * seconds)):
        due = started + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        asked.write(ASKED.pack(due, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--rate", type=float, help="photos a second, whether they are answered or not")
    args = parser.parse_args()
    photos = read_photos(args.photos)
    if not photos:
        sys.exit(f"error: no *.jpg in {args.photos}")
    with Ceiling(photos, args.batch, args.processes) as ceiling:
        print(json.dumps(ceiling.at_rate(args.rate, args.seconds) if args.rate else ceiling.at_most(args.batch, args.seconds)))


if __name__ == "__main__":
    main()
