"""Lines of the prediction log -> photos, oldest first: rotated files too, and later whatever has been appended."""

import contextlib
import glob
import heapq
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

NUMBERS = ("confidence", "unlike", "brightness", "contrast", "sharpness", "colourfulness", "width", "height", "bytes")
WORDS = ("label", "unsure", "format")  # of `unsure`, the words are the reasons, and SURE
SURE = "no"


class LogError(Exception):
    """Something about a log that the operator can put right."""


@dataclass(frozen=True, slots=True)
class Photo:
    """What one line says of a photo: its numbers and words are in the order of NUMBERS and WORDS."""

    time: float
    version: str
    numbers: tuple[float, ...]
    words: tuple[str, ...]


class PhotoLog:
    """One server's log; remembers how far each of its files was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0
        self.read_to: dict[tuple[int, int], int] = {}

    def new_photos(self) -> Iterator[Photo]:
        """Yield the photos of all lines that were not yielded before."""
        with contextlib.ExitStack() as stack:
            files: dict[tuple[int, int], IO[bytes]] = {}
            for path in self.paths():  # newest first: a file that is rotated meanwhile is met again, and not lost
                with contextlib.suppress(FileNotFoundError):
                    file: IO[bytes] = stack.enter_context(path.open("rb"))
                    status = os.fstat(file.fileno())
                    files.setdefault((status.st_dev, status.st_ino), file)
            if not files:
                raise LogError(f"no prediction log at {self.path}; PETCLF_PREDICTION_LOG tells the server where to write it")
            self.read_to = {key: self.read_to.get(key, 0) for key in files}
            for key, file in reversed(files.items()):
                yield from self.rest(key, file)

    def paths(self) -> list[Path]:
        """Return the log and its rotated files (.1, .2, ...), the newest first."""
        prefix = f"{self.path.name}."
        numbers = [path.name.removeprefix(prefix) for path in self.path.parent.glob(f"{glob.escape(prefix)}*")]
        return [self.path, *(self.path.with_name(prefix + number) for number in sorted(filter(str.isdecimal, numbers), key=int))]

    def rest(self, key: tuple[int, int], file: IO[bytes]) -> Iterator[Photo]:
        if self.read_to[key]:  # a pipe cannot seek
            if os.fstat(file.fileno()).st_size < self.read_to[key]:
                self.read_to[key] = 0  # somebody has emptied it
            file.seek(self.read_to[key])
        for line in file:
            if not line.endswith(b"\n"):
                break  # it is being written
            self.read_to[key] += len(line)
            if (photo := read_photo(line)) is None:
                self.broken += 1
            else:
                yield photo


def read_photo(line: bytes) -> Photo | None:
    """Return the photo of a line, or nothing where the line is none of the prediction log."""
    try:
        entry = json.loads(line)
        facts = {**entry["photo"], **entry, "unsure": entry["unsure_because"] or SURE}
        numbers = tuple(float(facts[name]) for name in NUMBERS)
        words = tuple(facts[name] for name in WORDS)
        time = datetime.fromisoformat(entry["time"]).timestamp()
        texts = all(isinstance(word, str) for word in (*words, entry["version"]))
        return Photo(time, entry["version"], numbers, words) if texts and all(map(math.isfinite, numbers)) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def new_photos(logs: Sequence[PhotoLog]) -> Iterator[Photo]:
    """Yield the new photos of several servers in the order of time."""
    return heapq.merge(*(log.new_photos() for log in logs), key=lambda photo: photo.time)
