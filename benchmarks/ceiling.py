"""The most that these cores can give: reading photos and the model in one process a core, and nothing else.

With --rate, the least that a photo can take when so many come a second: a pipe is the queue, and whoever is free answers what waits
in it, up to a batch. No server can be better.
"""

import argparse
import json
import multiprocessing
import os
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.load import quantiles, read_photos
from benchmarks.peers.core import Core

WARM_UP = 20  # batches
ASKED = struct.Struct("=dI")  # when a photo is due, and which one
Together = threading.Barrier  # a process of its own keeps it, and it looks the same


def work(photos: list[bytes], batch: int, seconds: float, together: Together) -> float:
    """Answer batches for some seconds, beginning when all processes do; returns photos a second."""
    core, done, turn = warm(photos, batch), 0, 0
    together.wait()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        core.answer_all([photos[(turn + index) % len(photos)] for index in range(batch)])
        turn += batch
        done += batch
    return done / (time.perf_counter() - started)


def serve(photos: list[bytes], batch: int, queue: Path, together: Together) -> list[float]:
    """Answer what comes through the queue until its end; returns the seconds that each photo took since it was due."""
    core, took = warm(photos, batch), list[float]()
    together.wait()
    with queue.open("rb", buffering=0) as asked:
        while waiting := asked.read(batch * ASKED.size):
            dues, numbers = zip(*ASKED.iter_unpack(waiting), strict=True)
            core.answer_all([photos[number % len(photos)] for number in numbers])
            now = time.perf_counter()
            took += [now - due for due in dues]
    return took


def warm(photos: list[bytes], batch: int) -> Core:
    core = Core()
    for size in (batch, 1):
        for _ in range(WARM_UP):
            core.answer_all(photos[:size])
    return core


def ask(queue: Path, rate: float, seconds: float) -> None:
    with queue.open("wb", buffering=0) as asked:
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = started + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            asked.write(ASKED.pack(due, number))


def at_most(photos: list[bytes], batch: int, seconds: float, processes: int) -> dict[str, Any]:
    with multiprocessing.Manager() as manager, multiprocessing.get_context("spawn").Pool(processes) as pool:
        together = manager.Barrier(processes)
        rates = pool.starmap(work, [(photos, batch, seconds, together)] * processes)
    return {"rate": sum(rates), "processes": processes, "batch": batch}


def at_rate(photos: list[bytes], batch: int, seconds: float, processes: int, rate: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="petclf-") as folder,
        multiprocessing.Manager() as manager,
        multiprocessing.get_context("spawn").Pool(processes) as pool,
    ):
        os.mkfifo(queue := Path(folder, "queue"))
        together = manager.Barrier(processes + 1)
        took = pool.starmap_async(serve, [(photos, batch, queue, together)] * processes)
        together.wait()
        ask(queue, rate, seconds)
        answered = [one for some in took.get() for one in some]
    summary = {"answered_ms": quantiles(answered), "statuses": {"200": len(answered)}}
    return {"rate": len(answered) / seconds, "processes": processes, "batch": batch, **summary}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--rate", type=float, help="photos a second, whether they are answered or not")
    args = parser.parse_args()
    how = read_photos(args.photos), args.batch, args.seconds, args.processes
    print(json.dumps(at_rate(*how, args.rate) if args.rate else at_most(*how)))


if __name__ == "__main__":
    main()
