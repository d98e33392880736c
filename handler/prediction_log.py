"""One JSON line a prediction, appended by all workers to one file that rotates; never a photo, a name or a header."""

import errno
import fcntl
import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KEEP = 5


class PredictionLog:
    """Where the lines go: a file, standard output, or nowhere. A full disk costs the lines, not the answers."""

    def __init__(self, target: str, limit: int) -> None:
        self.target, self.path = target, Path(target)
        self.limit = limit
        self.lost_before = False

    @classmethod
    def from_environment(cls) -> "PredictionLog":
        limit = os.environ.get("PETCLF_PREDICTION_LOG_BYTES", "")
        return cls(os.environ.get("PETCLF_PREDICTION_LOG", ""), int(limit) if limit.isdecimal() else 67_108_864)

    def write(self, entries: Iterable[dict[str, Any]]) -> int:
        """Append the entries with one write, so that no line is torn; returns how many were lost."""
        lines = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n" for entry in entries if self.target]
        if not lines:
            return 0
        try:
            if self.target == "stdout":
                print("".join(lines), end="", flush=True)
            else:
                self.append("".join(lines).encode())
        except OSError as error:
            self.warn(error)
            return len(lines)
        self.lost_before = False
        return 0

    def append(self, lines: bytes) -> None:
        """Write under a lock; a neighbour, or somebody by hand, may have moved the file while we waited for it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # closing the file gives the lock back
                size = os.fstat(file).st_size
                if self.is_current(file):
                    if not size or size + len(lines) <= self.limit:
                        return write_whole(file, lines, size)
                    self.rotate()
            finally:
                os.close(file)

    def is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def rotate(self) -> None:
        """Move the full file to .1, .1 to .2 and so on; nobody else can be writing, for the lock is held."""
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{number}") for number in range(1, KEEP + 1))]
        for newer, older in reversed([*itertools.pairwise(names)]):
            if newer.exists():
                newer.replace(older)

    def warn(self, error: OSError) -> None:
        if not self.lost_before:
            print(
                f"the prediction log {self.target} cannot be written: {error.strerror}; answers go on without it", file=sys.stderr
            )
        self.lost_before = True


def write_whole(file: int, lines: bytes, size: int) -> None:
    """Append all lines or nothing: where the disk is full, half a line would be worse than none."""
    if os.write(file, lines) < len(lines):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
