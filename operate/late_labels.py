"""Labels that come later, joined with the prediction log: how right the server was, whatever order they came in.

- Lines may come in any order, more than once, and in several files: everything here is a set, keyed by request and photo.
- An id with two different labels is contradictory and left out: no order says which of them is the right one.
- A request with several photos (`instances`) has one id for all of them, so no label can be given to one: they are left out too.
- The same photo asked about again under the same id (a retry, a heat map) is one prediction, the first.
"""

import csv
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from handler.model_file import ModelFileError, read_archive
from operate.client import UsageError
from operate.labelled import tidy
from operate.shares import Share, share_of

JOINED, UNKNOWN, CONTRADICTORY, SEVERAL, FOREIGN = "joined", "unknown", "contradictory", "several_photos", "foreign"
FACTS = ("format", "width", "height", "bytes")
Facts = tuple[str, int, int, int]


class Prediction(NamedTuple):
    """A line of the prediction log, as far as it is needed; `photo` is the same number for the same photo."""

    request_id: str
    photo: int
    time: datetime
    label: str
    unsure: bool
    version: str


class Label(NamedTuple):
    """A line of a label file."""

    request_id: str
    label: str


HEADING = Label("request_id", "label")


class Broken(NamedTuple):
    """A line that cannot be read, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Live:
    """How right some predictions are, as far as labels have come."""

    coverage: Share  # predictions with a label, of all
    accuracy: Share  # right ones, of those with a label
    sure: Share  # the same of the predictions that are not unsure
    unsure: Share  # of all predictions
    unsure_labelled: Share  # of those with a label: another share says that the labels are of other photos than the rest


@dataclass(frozen=True)
class OfVersion:
    """How right one version is, in all and by the day (UTC) on which it was asked."""

    live: Live
    days: dict[str, Live]


@dataclass(frozen=True)
class LateFigures:
    """What the labels that have come say of the predictions."""

    live: Live
    versions: dict[str, OfVersion]
    days: dict[str, Live]
    labels: dict[str, int]  # what became of the labelled ids: joined, unknown, contradictory, several_photos, foreign
    never_predicted: list[str]  # labels that no prediction has: a typing mistake, or nothing that the model knows


def late_figures(predictions: Iterable[Prediction], labels: Iterable[Label], known: Sequence[str] = ()) -> LateFigures:
    """Return the figures; neither order nor repetition changes them. With `known`, other labels than these are left out."""
    unique = first_predictions(predictions)
    photos = Counter(one.request_id for one in unique)
    given = labels_by_id(labels)
    fates = {request_id: fate(request_id, of_id, photos, known) for request_id, of_id in given.items()}
    truth = {request_id: next(iter(given[request_id])) for request_id, became in fates.items() if became == JOINED}
    predicted = {one.label for one in unique}
    return LateFigures(
        live=live(unique, truth),
        versions={version: OfVersion(live(some, truth), by_day(some, truth)) for version, some in grouped(unique, "version")},
        days=by_day(unique, truth),
        labels={became: list(fates.values()).count(became) for became in (JOINED, UNKNOWN, CONTRADICTORY, SEVERAL, FOREIGN)},
        never_predicted=sorted(set(truth.values()) - predicted),
    )


def first_predictions(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return one prediction for each photo of each request: the first that was made."""
    unique: dict[tuple[str, int], Prediction] = {}
    for one in predictions:
        key = one.request_id, one.photo
        if key not in unique or one < unique[key]:
            unique[key] = one
    return list(unique.values())


def labels_by_id(labels: Iterable[Label]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for request_id, label in labels:
        found.setdefault(request_id, set()).add(label)
    return found


def fate(request_id: str, labels: set[str], photos: Counter[str], known: Sequence[str]) -> str:
    """Return what becomes of an id's labels."""
    if len(labels) > 1:
        return CONTRADICTORY
    if request_id not in photos:
        return UNKNOWN
    if photos[request_id] > 1:
        return SEVERAL
    return FOREIGN if known and not labels <= set(known) else JOINED


def grouped(predictions: Iterable[Prediction], name: str) -> list[tuple[str, list[Prediction]]]:
    """Return the predictions by version or by day, both in order."""
    groups: dict[str, list[Prediction]] = {}
    for one in predictions:
        groups.setdefault(one.version if name == "version" else one.time.date().isoformat(), []).append(one)
    return sorted(groups.items())


def by_day(predictions: Iterable[Prediction], truth: dict[str, str]) -> dict[str, Live]:
    return {day: live(some, truth) for day, some in grouped(predictions, "day")}


def live(predictions: Sequence[Prediction], truth: dict[str, str]) -> Live:
    labelled = [one for one in predictions if one.request_id in truth]
    right = [one for one in labelled if one.label == truth[one.request_id]]
    unsure, unsure_labelled, unsure_right = (sum(one.unsure for one in some) for some in (predictions, labelled, right))
    return Live(
        share_of(len(labelled), len(predictions)),
        share_of(len(right), len(labelled)),
        share_of(len(right) - unsure_right, len(labelled) - unsure_labelled),
        share_of(unsure, len(predictions)),
        share_of(unsure_labelled, len(labelled)),
    )


def rotated(log: Path) -> list[Path]:
    """Return a prediction log and its older parts, the newest first: what rotates meanwhile is read twice, not missed."""
    if not log.is_file():
        raise UsageError(f"no prediction log at {log}; the server writes it to the file that PETCLF_PREDICTION_LOG names")
    older = [path for path in log.parent.glob(f"{log.name}.*") if path.name.removeprefix(f"{log.name}.").isdecimal()]
    return [log, *sorted(older, key=lambda path: int(path.name.rpartition(".")[2]))]


def facts_of(archive: Path) -> Facts:
    """Return what the log says of the archive's known photo, which probes ask about all day."""
    try:
        photo = read_archive(archive).model.photo
    except ModelFileError as error:
        raise UsageError(f"{archive} {error}") from None
    width, height = struct.unpack(">II", photo[16:24])  # where a PNG has them
    return "PNG", width, height, len(photo)


def read_log(path: Path, known_photos: Sequence[Facts] = ()) -> Iterator[Prediction | Broken]:
    """Yield what each line of a prediction log says; a last line that is only half written is left for the next time."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            read = read_prediction(line, known_photos)
            if isinstance(read, Prediction):
                yield read
            elif read and line.endswith(b"\n"):
                yield Broken(str(path), number, read)


def read_prediction(line: bytes, known_photos: Sequence[Facts] = ()) -> Prediction | str:
    """Return a prediction, or why the line is none; nothing of a known photo."""
    try:
        entry: dict[str, Any] = json.loads(line)
        time = datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
        time = time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)
        texts = [entry[name] for name in ("request_id", "label", "version")]
        facts, unsure = entry["photo"], entry["unsure_because"] is not None
        photo = hash(tuple(sorted(facts.items())))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return "no JSON"
    except KeyError as missing:
        return f"no prediction: {missing.args[0]} is missing"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "no prediction"
    if not all(isinstance(text, str) and text for text in texts):
        return "no prediction"
    if known_photos and tuple(facts.get(name) for name in FACTS) in known_photos:
        return ""
    request_id, label, version = texts
    return Prediction(request_id, photo, time, sys.intern(label), unsure, sys.intern(version))


def read_labels(path: Path) -> Iterator[Label | Broken]:
    """Yield each line of a CSV with the columns request_id and label; each is read by itself, so a stray quote costs one."""
    with path.open("rb") as file:
        columns = label_columns(path, file.readline())
        for number, line in enumerate(file, 2):
            read = read_label(path, number, line, columns) if line.strip() else HEADING
            if read != HEADING:  # where files were put together, it comes again
                yield read


def label_columns(path: Path, line: bytes) -> tuple[int, int]:
    """Return where request_id and label are in each line, as the first one says."""
    try:
        names = fields(line.removeprefix(b"\xef\xbb\xbf"))
        return names.index("request_id"), names.index("label")
    except (ValueError, csv.Error):  # UnicodeDecodeError is a ValueError
        shown = line.decode(errors="replace").strip()[:80] or "empty"
        raise UsageError(f"{path} needs the columns request_id, label; its first line is {shown}") from None


def read_label(path: Path, number: int, line: bytes, columns: tuple[int, int]) -> Label | Broken:
    try:
        values = fields(line)
    except UnicodeDecodeError:
        return Broken(str(path), number, "no text in UTF-8")
    except csv.Error as error:
        return Broken(str(path), number, f"no CSV: {error}")
    request_id, label = (values[column] if column < len(values) else "" for column in columns)
    if not request_id or not label:
        return Broken(str(path), number, f"the {'label' if request_id else 'request_id'} is empty")
    return Label(request_id, tidy(label))


def fields(line: bytes) -> list[str]:
    text = line.decode().strip()
    return [value.strip() for value in next(csv.reader([text], strict=True), [])]
