"""One JSON line a prediction, appended by all workers to one file that rotates; never a photo, a name or a header."""

import errno
import fcntl
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
        self.target = target
        self.limit = limit
        self.file: int | None = None
        self.lost_before = False

    @classmethod
    def from_environment(cls) -> "PredictionLog":
        limit = os.environ.get("PETCLF_PREDICTION_LOG_BYTES", "")
        return cls(os.environ.get("PETCLF_PREDICTION_LOG", ""), int(limit) if limit.isdecimal() else 67_108_864)

    def write(self, entries: Iterable[dict[str, Any]]) -> int:
        """Append the entries with one write, so that no line is torn; returns how many were lost."""
        written = (
            [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n" for entry in entries] if self.target else []
        )
        if not written:
            return 0
        lines = "".join(written).encode()
        try:
            if self.target == "stdout":
                sys.stdout.write(lines.decode())
                sys.stdout.flush()
            else:
                self.append(lines)
        except OSError as error:
            self.close()
            self.warn(error)
            return len(written)
        self.lost_before = False
        return 0

    def append(self, lines: bytes) -> None:
        """Write under a lock; the file may have been rotated by a neighbour, or by hand, while we waited for it."""
        while True:
            file = self.opened()
            fcntl.flock(file, fcntl.LOCK_EX)  # closing the file gives the lock back
            size = os.fstat(file).st_size
            if not self.is_current(file):
                self.close()
            elif size and size + len(lines) > self.limit:
                self.rotate()
                self.close()
            else:
                break
        written = os.write(file, lines)
        if written < len(lines):
            os.ftruncate(file, size)  # the disk is full: half a line would be worse than none
        fcntl.flock(file, fcntl.LOCK_UN)
        if written < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self) -> int:
        if self.file is not None and not self.is_current(self.file):
            self.close()
        if self.file is None:
            path = Path(self.target)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        return self.file

    def is_current(self, file: int) -> bool:
        try:
            return os.fstat(file).st_ino == Path(self.target).stat().st_ino
        except FileNotFoundError:
            return False

    def rotate(self) -> None:
        """Move the full file to .1, .1 to .2 and so on; nobody else can be writing, for the lock is held."""
        path = Path(self.target)
        for number in range(KEEP - 1, 0, -1):
            old = path.with_name(f"{path.name}.{number}")
            if old.exists():
                old.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def warn(self, error: OSError) -> None:
        if not self.lost_before:
            print(
                f"the prediction log {self.target} cannot be written: {error.strerror}; answers go on without it", file=sys.stderr
            )
        self.lost_before = True
