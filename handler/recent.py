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
RING = np.dtype([("total", "i8"), ("records", RECORD, COUNT)])


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

    def add(self, entries: list[tuple[str, bool, float, dict[str, float]]]) -> None:
        """Remember label, unsure, seconds and statistics of each photo."""
        with self.locked(fcntl.LOCK_EX):
            for label, unsure, seconds, statistics in entries:
                values = [statistics[name] for name in STATISTICS]
                self.ring["records"][self.ring["total"] % COUNT] = (self.labels.index(label), unsure, seconds, *values)
                self.ring["total"] += 1

    def summary(self) -> dict[str, Any]:
        """Return the last predictions in a few figures."""
        with self.locked(fcntl.LOCK_SH):
            total = int(self.ring["total"])
            last = self.ring["records"][:total].copy()
        means = {name: float(last[name].mean()) for name in FIGURES} if total else {}
        return {
            "predictions": len(last),
            "total": total,
            "labels": {label: int((last["label"] == index).sum()) for index, label in enumerate(self.labels)},
            "unsure": int(last["unsure"].sum()),
            "mean_confidence": round(means["confidence"], 6) if total else None,
            "mean_milliseconds": round(means["seconds"] * 1000, 3) if total else None,
            "statistics": {name: round(means[name], 6) for name in STATISTICS if total},
        }
