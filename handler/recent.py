"""The last predictions of all workers together: a small ring in a file that they share."""

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Any

COUNT = 100
STATISTICS = ("brightness", "contrast", "sharpness", "colourfulness", "confidence", "unlike")
RECORD = struct.Struct("<ibd" + "d" * len(STATISTICS))  # label, unsure, seconds, statistics
HEADER = struct.Struct("<q")
SIZE = HEADER.size + COUNT * RECORD.size


class Recent:
    """What was predicted lately, whichever worker answered."""

    def __init__(self, path: Path, labels: list[str]) -> None:
        self.labels = labels
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(self.file).st_size < SIZE:
            os.ftruncate(self.file, SIZE)
        self.memory = mmap.mmap(self.file, SIZE)

    def add(self, entries: list[tuple[str, bool, float, dict[str, float]]]) -> None:
        """Remember label, unsure, seconds and statistics of each photo."""
        fcntl.flock(self.file, fcntl.LOCK_EX)
        try:
            (total,) = HEADER.unpack_from(self.memory)
            for label, unsure, seconds, statistics in entries:
                values = [statistics[name] for name in STATISTICS]
                RECORD.pack_into(self.memory, place(total), self.labels.index(label), unsure, seconds, *values)
                total += 1
            HEADER.pack_into(self.memory, 0, total)
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def records(self) -> tuple[int, list[tuple[Any, ...]]]:
        """Return how many there ever were, and the last ones."""
        fcntl.flock(self.file, fcntl.LOCK_SH)
        try:
            (total,) = HEADER.unpack_from(self.memory)
            return total, [RECORD.unpack_from(self.memory, place(index)) for index in range(min(total, COUNT))]
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def summary(self) -> dict[str, Any]:
        """Return the last predictions in a few figures."""
        total, records = self.records()
        count = len(records)
        means = [sum(record[place] for record in records) / count for place in range(2, 3 + len(STATISTICS))] if count else []
        statistics = dict(zip(STATISTICS, means[1:], strict=False))
        return {
            "predictions": count,
            "total": total,
            "labels": {label: sum(record[0] == index for record in records) for index, label in enumerate(self.labels)},
            "unsure": sum(record[1] for record in records),
            "mean_confidence": round(statistics["confidence"], 6) if count else None,
            "mean_milliseconds": round(means[0] * 1000, 3) if count else None,
            "statistics": {name: round(value, 6) for name, value in statistics.items()},
        }


def place(index: int) -> int:
    return HEADER.size + index % COUNT * RECORD.size
