"""Reads prediction logs and label files, again and again where they grow; what has not changed is not read twice."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from operate.client import UsageError
from operate.late_labels import Broken, Facts, Label, LateFigures, Prediction, late_figures, read_labels, read_log, rotated

TOLD = 100  # broken lines of each file that are told; all are counted
Line = TypeVar("Line", Prediction, Label)
Identity = tuple[int, int, int, int]


@dataclass(frozen=True)
class Content(Generic[Line]):
    """What a file holds: its lines, the first broken ones, and how many are broken."""

    lines: list[Line]
    told: list[Broken]
    broken: int


@dataclass(frozen=True)
class Late:
    """The figures of the labels that have come, and what could not be read."""

    logs: list[str]
    label_files: list[str]
    figures: LateFigures
    broken: dict[str, int]  # broken lines of the logs and of the label files
    told: list[Broken]  # the first of them

    def document(self) -> dict[str, Any]:
        """Return what figures.json holds."""
        told = [one._asdict() for one in self.told]
        return {
            "logs": self.logs, "label_files": self.label_files, **asdict(self.figures), "broken": self.broken, "broken_lines": told,
        }  # fmt: skip


class Reader:
    """Reads the same logs and label files as often as wanted."""

    def __init__(
        self, logs: Sequence[Path], labels: Sequence[Path], known: Sequence[str] = (), known_photos: Sequence[Facts] = ()
    ) -> None:
        self.logs, self.labels, self.known = list(dict.fromkeys(logs)), list(dict.fromkeys(labels)), known
        self.read_log = partial(read_log, known_photos=known_photos)
        self.read_logs: dict[Identity, Content[Prediction]] = {}
        self.read_label_files: dict[Identity, Content[Label]] = {}

    def log_parts(self) -> list[Path]:
        """Return the logs and their older parts."""
        return list(dict.fromkeys(path for log in self.logs for path in rotated(log)))

    def identities(self) -> list[Identity]:
        """Return what changes when a file changes, comes or goes."""
        return [identity(path.stat()) for path in [*self.log_parts(), *self.labels] if path.exists()]

    def read(self) -> Late:
        """Return the figures of what the files hold now."""
        for path in self.labels:
            if not path.is_file():
                raise UsageError(f"no label file at {path}; it needs the columns request_id, label")
        self.read_logs = dict(each(self.log_parts(), self.read_logs, self.read_log))
        self.read_label_files = dict(each(self.labels, self.read_label_files, read_labels))
        logs, labels = list(self.read_logs.values()), list(self.read_label_files.values())
        found = late_figures(chained(logs), chained(labels), self.known)
        broken = {"logs": sum(one.broken for one in logs), "label_files": sum(one.broken for one in labels)}
        told = [*chain.from_iterable(one.told for one in logs), *chain.from_iterable(one.told for one in labels)]
        return Late([str(log) for log in self.logs], [str(path) for path in self.labels], found, broken, told)


def each(
    paths: Iterable[Path], known: dict[Identity, Content[Line]], read: Callable[[Path], Iterator[Line | Broken]]
) -> Iterator[tuple[Identity, Content[Line]]]:
    """Yield the content of every file, read anew only where it changed."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it has just been rotated: then its lines are in the next one
            found = identity(path.stat())  # before reading: what is written meanwhile counts as a change
            yield found, known[found] if found in known else content(read(path))


def content(read: Iterable[Line | Broken]) -> Content[Line]:
    lines: list[Line] = []
    told: list[Broken] = []
    broken = 0
    for one in read:
        if not isinstance(one, Broken):
            lines.append(one)
            continue
        broken += 1
        if len(told) < TOLD:
            told.append(one)
    return Content(lines, told, broken)


def chained(contents: Iterable[Content[Line]]) -> Iterator[Line]:
    return chain.from_iterable(one.lines for one in contents)


def identity(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
