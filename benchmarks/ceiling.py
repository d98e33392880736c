"""The most that these cores can give: reading photos and the model in one process a core, and nothing else."""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

from benchmarks.load import read_photos
from benchmarks.peers.core import Core

WARM_UP = 20  # batches


def work(photos: list[bytes], batch: int, seconds: float, together: "multiprocessing.synchronize.Barrier") -> float:
    """Answer batches for some seconds, beginning when all processes do; returns photos a second."""
    core, done, turn = Core(), 0, 0
    for _ in range(WARM_UP):
        core.answer_all(photos[:batch])
    together.wait()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        core.answer_all([photos[(turn + index) % len(photos)] for index in range(batch)])
        turn += batch
        done += batch
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    photos = read_photos(args.photos)
    with multiprocessing.Manager() as manager, multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        together = manager.Barrier(args.processes)
        rates = pool.starmap(work, [(photos, args.batch, args.seconds, together)] * args.processes)
    print(json.dumps({"rate": sum(rates), "processes": args.processes, "batch": args.batch}))


if __name__ == "__main__":
    main()
