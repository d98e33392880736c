"""The last predictions of all workers together: a small ring in a file that they share."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 100
STATISTICS = ("brightness", "contrast", "sharpness", "colourfulness", "confidence", "unlike")
FIGURES = ("seconds", *STATISTICS)
RECORD = np.dtype([("label", "i4"), ("unsure", "?"), *((name, "f8") for name in FIGURES)])
COUNTERS = np.dtype([("photos", "i8"), ("unsure", "i8"), ("failed", "i8"), ("seconds", "f8")])  # since the version's first photo
RING = np.dtype([("counters", COUNTERS), ("records", RECORD, COUNT)])


class Recent:
    """What was predicted lately, whichever worker answered."""

    def __init__(self, path: Path, labels: list[str]) -> None:
        self.labels = labels
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.file, RING.itemsize)
        self.ring = np.frombuffer(mmap.mmap(self.file, RING.itemsize), RING)[0]

    @contextmanager
    def locked(self, how: int) -> Iterator[None]:
        fcntl.flock(self.file, how)
        try:
            yield
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def add(self, entries: list[tuple[str, bool, float, dict[str, float]]], failed: int = 0) -> None:
        """Remember label, unsure, seconds and statistics of each photo, and how many could not be answered by a fault of ours."""
        with self.locked(fcntl.LOCK_EX):
            counters = self.ring["counters"]
            counters["failed"] += failed
            for label, unsure, seconds, statistics in entries:
                values = [statistics[name] for name in STATISTICS]
                self.ring["records"][counters["photos"] % COUNT] = (self.labels.index(label), unsure, seconds, *values)
                counters["photos"] += 1
                counters["unsure"] += unsure
                counters["seconds"] += seconds

    def summary(self) -> dict[str, Any]:
        """Return the last predictions in a few figures, and what has been counted since the first."""
        with self.locked(fcntl.LOCK_SH):
            counted = {name: self.ring["counters"][name].item() for name in COUNTERS.names or ()}
            total = counted["photos"]
            last = self.ring["records"][:total].copy()
        means = {name: float(last[name].mean()) for name in FIGURES} if total else {}
        return {
            "predictions": len(last),
            "total": total,
            "counted": {**counted, "seconds": round(counted["seconds"], 6)},
            "labels": {label: int((last["label"] == index).sum()) for index, label in enumerate(self.labels)},
            "unsure": int(last["unsure"].sum()),
            "mean_confidence": round(means["confidence"], 6) if total else None,
            "mean_milliseconds": round(means["seconds"] * 1000, 3) if total else None,
            "statistics": {name: round(means[name], 6) for name in STATISTICS if total},
        }
