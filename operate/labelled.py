"""Photos whose labels are known, a server's answers about them, and the figures of how right these are."""

import contextlib
import csv
import math
import unicodedata
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from operate.client import FAILURES, SUFFIXES, UNREACHABLE, Client, Reply, UsageError, in_order, why
from operate.shares import Share, mean, percentile, share_of

BINS = 15
UNLIKE = "unlike_training_photos"
UNKNOWN = "unknown"  # version or archive where the answer does not say it
NO_PREDICTION = "the server's answer is no prediction; is it a petclf server?"


@dataclass(frozen=True)
class Photo:
    """A photo whose label is known; `name` is its path inside the folder or as the CSV writes it."""

    name: str
    path: Path
    label: str


@dataclass(frozen=True)
class Answered:
    """What the server said about a photo whose label is known; `error` says why it said nothing."""

    photo: str
    truth: str
    label: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    unsure_because: str | None = None
    unlike: float | None = None  # where the answer has it
    milliseconds: float = 0.0  # that the client waited, retries included
    version: str = ""
    archive: str = ""  # sha256 of the archive that answered
    request_id: str = ""
    error: str | None = None

    @property
    def confidence(self) -> float:
        return self.probabilities[self.label] if self.label else 0.0

    @property
    def is_right(self) -> bool:
        return self.label == self.truth


@dataclass(frozen=True)
class OfLabel:
    """How the photos of one true label are answered."""

    right: Share
    unsure: Share
    unlike: Share


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one fifteenth of the range from 0 to 1."""

    confidence: float
    accuracy: float
    photos: int


@dataclass(frozen=True)
class Milliseconds:
    """How long clients waited for an answer: each figure is the time of one of the requests."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Mistake:
    """A wrong answer."""

    photo: str
    truth: str
    label: str
    confidence: float
    unsure_because: str | None


@dataclass(frozen=True)
class NotAnswered:
    """A photo that the server, or the way to it, refused."""

    photo: str
    truth: str
    error: str


@dataclass(frozen=True)
class Figures:
    """How right some answers are. What cannot be known of these photos is None.

    Accuracy, calibration, unsure and unlike are of the `measured` photos: those that were answered by a model that knows their label.
    """

    photos: int
    answered: int
    errors: int
    measured: int
    labels: list[str]  # that the model knows
    unknown_labels: dict[str, int]  # labels of answered photos that the model does not know, with their photos
    labels_without_photos: list[str]
    accuracy: Share
    balanced_accuracy: float | None  # needs photos of two labels
    confusion: dict[str, dict[str, int]]  # true label -> answer -> photos
    by_label: dict[str, OfLabel]
    calibration_error: float | None
    reliability: list[Bin]
    unsure: Share
    sure: Share  # the right ones among the answers that are not unsure
    unlike: Share
    milliseconds: Milliseconds | None
    versions: dict[str, int]
    archives: dict[str, int]
    mistakes: list[Mistake]  # the most confident first
    not_answered: list[NotAnswered]


def labelled_photos(source: Path) -> list[Photo]:
    """Return the photos of a folder that has one sub-folder a label, or of a CSV with the columns `photo` and `label`."""
    if source.is_dir():
        photos = photos_of_folder(source)
    elif source.is_file():
        photos = list(photos_of_csv(source))
    else:
        raise UsageError(f"no folder and no CSV at {source}")
    if not photos:
        raise UsageError(
            f"no labelled photo in {source}; it needs one sub-folder a label, or a CSV with the columns photo, label"
        )
    return photos


def photos_of_folder(folder: Path) -> list[Photo]:
    """Return the photos below each sub-folder, whose name is their label."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    names = [path.relative_to(folder) for path in paths]
    shown = [(name, path) for name, path in zip(names, paths, strict=True) if not any(part[0] == "." for part in name.parts)]
    bare = [path for name, path in shown if len(name.parts) == 1]
    if bare:
        raise UsageError(
            f"{len(bare):,} of the {len(shown):,} photos in {folder} have no label, the first is {bare[0]}; "
            "move them into a folder that is called like their label"
        )
    return [Photo(name.as_posix(), path, tidy(name.parts[0])) for name, path in shown]


def photos_of_csv(source: Path) -> Iterator[Photo]:
    """Yield the photos that the CSV names, with paths relative to its own folder."""
    lines: dict[Path, int] = {}
    for line, name, label in labelled_lines(source, "photo"):
        path = source.parent / name
        if not path.is_file():
            raise UsageError(f"{source}, line {line}: no photo at {path}")
        if (first := lines.setdefault(path.resolve(), line)) != line:
            raise UsageError(f"{source}, line {line}: {name} is in line {first} too; name each photo once")
        yield Photo(name, path, label)


def labelled_lines(source: Path, key: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, `key` and label of each line of a CSV."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := {key, "label"} - set(rows.fieldnames or ()):
                found = ",".join(rows.fieldnames or ()) or "empty"
                raise UsageError(f"{source} has no column {' and no column '.join(sorted(missing))}; its first line is {found}")
            for row in rows:
                name, label = (row[key] or "").strip(), tidy(row["label"] or "")
                if not name or not label:
                    raise UsageError(f"{source}, line {rows.line_num}: {'the label' if name else f'the {key}'} is empty")
                yield rows.line_num, name, label
    except UnicodeDecodeError:
        raise UsageError(f"{source} is no text in UTF-8; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{source} is no CSV: {error}") from None


def tidy(label: str) -> str:
    """Return a label as training writes it: NFC, no outer spaces; `Cat` and `CAT` are `cat`, other scripts stay."""
    text = " ".join(unicodedata.normalize("NFC", label).split())
    return text.lower() if text.isascii() else text


def ask_about(client: Client, photos: Iterable[Photo], jobs: int) -> Generator[Answered, None, None]:
    """Ask about several photos at a time, and yield what the server said in the photos' order."""
    reached = False
    with contextlib.closing(in_order(lambda _, photo: ask(client, photo), photos, jobs)) as answers:
        for one in answers:
            reached = reached or not (one.error or "").startswith(UNREACHABLE)
            if not reached:
                raise UsageError(f"{client.server}: {one.error}; is it running?")
            yield one


def ask(client: Client, photo: Photo) -> Answered:
    """Return what the server says about one photo, or why it says nothing."""
    try:
        return read_answer(photo, *client.predict(photo.path.read_bytes()))
    except FAILURES as failure:
        return Answered(photo.name, photo.label, error=why(failure, str(photo.path)))


def read_answer(photo: Photo, answer: dict[str, Any], reply: Reply) -> Answered:
    """Return an answer of the API with what the figures need."""
    label, probabilities = answer.get("label"), answer.get("probabilities")
    if not is_distribution(probabilities) or not isinstance(label, str) or label not in probabilities:
        return Answered(photo.name, photo.label, error=NO_PREDICTION)
    unlike, model, because = answer.get("unlike"), answer.get("model"), answer.get("unsure_because")
    return Answered(
        photo.name,
        photo.label,
        label,
        probabilities,
        str(because) if because else None,
        float(unlike) if is_number(unlike) else None,
        reply.milliseconds,
        str(model.get("version", "")) if isinstance(model, dict) else "",
        reply.headers.get("x-petclf-archive", ""),
        str(answer.get("request_id", "")),
    )


def is_distribution(value: Any) -> TypeGuard[dict[str, float]]:
    return isinstance(value, dict) and all(is_number(one) and 0 <= one <= 1 for one in value.values())


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def figures(answers: Iterable[Answered]) -> Figures:
    """Return how right the answers are; their order does not matter."""
    everything = sorted(answers, key=lambda one: (one.photo, one.truth))
    answered = [one for one in everything if one.error is None]
    measured = [one for one in answered if one.truth in one.probabilities]
    labels = sorted({label for one in answered for label in one.probabilities})
    right = sum(one.is_right for one in measured)
    sure = [one for one in measured if one.unsure_because is None]
    by_label = {
        truth: of_label([one for one in answered if one.truth == truth]) for truth in sorted({one.truth for one in answered})
    }
    bins = reliability(measured)
    return Figures(
        photos=len(everything),
        answered=len(answered),
        errors=len(everything) - len(answered),
        measured=len(measured),
        labels=labels,
        unknown_labels=counted(one.truth for one in answered if one.truth not in one.probabilities),
        labels_without_photos=[label for label in labels if label not in {one.truth for one in everything}],
        accuracy=share_of(right, len(measured)),
        balanced_accuracy=balanced_accuracy(measured),
        confusion={truth: confusion_row(answered, truth, labels) for truth in by_label},
        by_label=by_label,
        calibration_error=mean_gap(bins),
        reliability=bins,
        unsure=share_of(len(measured) - len(sure), len(measured)),
        sure=share_of(sum(one.is_right for one in sure), len(sure)),
        unlike=share_of(sum(one.unsure_because == UNLIKE for one in measured), len(measured)),
        milliseconds=percentiles([one.milliseconds for one in answered]),
        versions=counted(one.version or UNKNOWN for one in answered),
        archives=counted(one.archive or UNKNOWN for one in answered),
        mistakes=mistakes(measured),
        not_answered=[NotAnswered(one.photo, one.truth, one.error) for one in everything if one.error is not None],
    )


def counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def of_label(answers: Sequence[Answered]) -> OfLabel:
    count = len(answers)
    return OfLabel(
        share_of(sum(one.is_right for one in answers), count),
        share_of(sum(one.unsure_because is not None for one in answers), count),
        share_of(sum(one.unsure_because == UNLIKE for one in answers), count),
    )


def confusion_row(answered: Sequence[Answered], truth: str, labels: Sequence[str]) -> dict[str, int]:
    """Return how many photos of a true label got which answer."""
    counts = Counter(one.label for one in answered if one.truth == truth)
    return {label: counts[label] for label in labels}


def balanced_accuracy(measured: Sequence[Answered]) -> float | None:
    """Return the mean over the labels of the share of their photos that are answered right."""
    photos, right = Counter(one.truth for one in measured), Counter(one.truth for one in measured if one.is_right)
    return mean([right[label] / count for label, count in photos.items()]) if len(photos) > 1 else None


def reliability(measured: Sequence[Answered]) -> list[Bin]:
    """Return confidence and accuracy of each bin of equal width that has photos."""
    bins: dict[int, list[Answered]] = {}
    for one in measured:
        bins.setdefault(min(int(one.confidence * BINS), BINS - 1), []).append(one)
    return [
        Bin(mean([one.confidence for one in some]), mean([float(one.is_right) for one in some]), len(some))
        for _, some in sorted(bins.items())
    ]


def mean_gap(bins: Sequence[Bin]) -> float | None:
    """Return the mean distance of confidence and accuracy, weighted by the bins' photos: the calibration error."""
    photos = sum(one.photos for one in bins)
    return math.fsum(abs(one.confidence - one.accuracy) * one.photos for one in bins) / photos if photos else None


def percentiles(milliseconds: Sequence[float]) -> Milliseconds | None:
    if not milliseconds:
        return None
    return Milliseconds(*(round(percentile(milliseconds, percent), 2) for percent in (50, 95, 99)))


def mistakes(measured: Sequence[Answered]) -> list[Mistake]:
    """Return the wrong answers, the most confident first."""
    wrong = sorted((one for one in measured if not one.is_right), key=lambda one: (-one.confidence, one.photo))
    return [Mistake(one.photo, one.truth, str(one.label), one.confidence, one.unsure_because) for one in wrong]
