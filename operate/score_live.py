"""How right is a running server? Its answers about labelled photos as text, JSON, a report and a run in MLflow."""

import csv
import io
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from operate.client import Client
from operate.command import progress
from operate.files import write_whole
from operate.labelled import Answered, Figures, Photo, ask_about, figures
from operate.page import between, percent
from operate.score_page import render
from operate.shares import Share, Z

FIRST = 10  # as many mistakes, labels or refusals are printed; all of them are in the report
LABELS_TO_PRINT = 20


@dataclass(frozen=True)
class Scored:
    """A run of questions about labelled photos, and what came of it."""

    source: str
    server: str
    model: str
    time: str  # UTC, when the first question was asked
    seconds: float
    jobs: int
    answers: list[Answered]
    figures: Figures

    def document(self) -> dict[str, object]:
        """Return what figures.json holds: everything but the single answers."""
        facts = {name: value for name, value in vars(self).items() if name not in ("answers", "figures")}
        return {**facts, **asdict(self.figures)}


def score(client: Client, source: Path, photos: Sequence[Photo], jobs: int) -> Scored:
    """Ask about every photo, and compute the figures."""
    begin, started = datetime.now(timezone.utc), time.perf_counter()
    answers = list(progress(ask_about(client, photos, jobs), len(photos)))
    seconds = round(time.perf_counter() - started, 3)
    server = re.sub(r"//[^/@]*@", "//", client.server)  # a password is nobody's business
    moment = begin.isoformat(timespec="seconds")
    return Scored(str(source), server, client.model, moment, seconds, jobs, answers, figures(answers))


def as_json(scored: Scored, indent: int | None = None) -> str:
    return json.dumps(scored.document(), ensure_ascii=False, allow_nan=False, indent=indent)


def write_report(scored: Scored, folder: Path, photos: dict[str, Path] | None = None) -> Path:
    """Write report.html, figures.json and answers.csv into a folder; with `photos` (by name) the report shows the mistakes."""
    write_whole(folder / "answers.csv", as_csv(scored.answers))
    write_whole(folder / "figures.json", as_json(scored, indent=2) + "\n")
    write_whole(folder / "report.html", render(scored.document(), scored.figures, sentences(scored.figures), photos))
    return folder / "report.html"


def as_csv(answers: Sequence[Answered]) -> str:
    """Return a line a photo, with its true label and the answer: scripts.late_labels takes it as a label file."""
    labels = sorted({label for one in answers for label in one.probabilities})
    rest = ["unsure_because", "unlike", "milliseconds", "version", "archive", "request_id", "error"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["photo", "label", "answer", *(f"probability_{label}" for label in labels), *rest])
    for one in answers:
        values = [vars(one)[name] for name in rest]
        shares = [one.probabilities.get(label) for label in labels]
        writer.writerow(
            [one.photo, one.truth, one.label, *shares, *(round(it, 3) if isinstance(it, float) else it for it in values)]
        )
    return file.getvalue()


def sentences(found: Figures) -> list[str]:
    """Return what a reader must know before trusting the figures."""
    said = []
    if found.errors:
        said.append(f"{found.errors:,} of {found.photos:,} photos were not answered; no figure counts them.")
    if found.unknown_labels:
        counts = ", ".join(f"{label} ({count:,})" for label, count in found.unknown_labels.items())
        said.append(f"The model knows only {', '.join(found.labels)}; photos of other labels are not counted: {counts}.")
    if found.answered and found.labels_without_photos:
        said.append(f"The model also knows {', '.join(found.labels_without_photos)}, of which there is no photo here.")
    if len(found.archives) > 1:
        counts = ", ".join(f"{version} ({count:,})" for version, count in found.versions.items())
        said.append(f"More than one model answered, versions {counts}; --version asks one of them.")
    return said


def as_text(found: Figures) -> str:
    """Return the figures as they are printed."""
    rows = [
        ("accuracy", counted(found.accuracy)),
        ("balanced accuracy", percent(found.balanced_accuracy)),
        ("accuracy when sure", counted(found.sure)),
        ("unsure", counted(found.unsure)),
        ("unlike", counted(found.unlike)),
        ("calibration error", "unknown" if found.calibration_error is None else f"{found.calibration_error:.4f} (15 bins)"),
        ("latency", latency(found)),
        ("version", ", ".join(found.versions)),
        ("archive", ", ".join(archive[:12] for archive in found.archives)),
    ]
    lines = [f"{found.photos:,} photos, {found.answered:,} answered", *(f"{name:<20}{text}" for name, text in rows)]
    return "\n".join([*lines, *labels_in_text(found), *mistakes_in_text(found), *refusals_in_text(found), *sentences(found)])


def counted(share: Share) -> str:
    if share.share is None:
        return "unknown"
    return f"{percent(share.share)} ({share.count:,} of {share.photos:,}; 95 % interval {between(share)})"


def latency(found: Figures) -> str:
    times = found.milliseconds
    return "unknown" if times is None else f"p50 {times.p50:.1f} ms, p95 {times.p95:.1f} ms, p99 {times.p99:.1f} ms"


def labels_in_text(found: Figures) -> list[str]:
    """Return a line a label: how many of its photos are right, and what the others are taken for."""
    width = max(map(len, found.by_label), default=0)
    lines = []
    for label, one in found.by_label.items():
        wrong = sorted(
            ((count, other) for other, count in found.confusion[label].items() if other != label and count), reverse=True
        )
        taken = ", ".join(f"{other} {count:,}" for count, other in wrong)
        right = percent(one.right.share) if label not in found.unknown_labels else "not counted"
        lines.append(
            f"  {label:<{width}}  {one.right.photos:>7,} photos  {right:>11}  {taken and 'answered instead: ' + taken}".rstrip()
        )
    return ["labels", *shortened(lines, LABELS_TO_PRINT)] if lines else []


def mistakes_in_text(found: Figures) -> list[str]:
    lines = [
        f"  {one.photo}  {one.truth}, answered {one.label} at {percent(one.confidence, 1)}"
        + (f", unsure: {one.unsure_because.replace('_', ' ')}" if one.unsure_because else "")
        for one in found.mistakes
    ]
    return [f"mistakes ({len(lines):,}), the most confident first", *shortened(lines, FIRST)] if lines else []


def refusals_in_text(found: Figures) -> list[str]:
    lines = [f"  {one.photo}  {one.error}" for one in found.not_answered]
    return ["not answered", *shortened(lines, FIRST)] if lines else []


def shortened(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"  ... and {len(lines) - most:,} more; --report writes all of them"]


def judge(accuracy: Share, at_least: float) -> tuple[bool, str]:
    """Return whether the interval's lower end reaches the threshold, and a sentence about it."""
    wanted = percent(at_least)
    if accuracy.share is None or accuracy.interval is None:
        return False, f"no accuracy could be measured, so it is not known to be {wanted}"
    low = percent(accuracy.interval[0])
    if accuracy.interval[0] >= at_least:
        return True, f"the accuracy is at least {wanted}: its interval begins at {low}"
    if accuracy.share <= at_least:
        return False, f"the accuracy is not above {wanted}: {percent(accuracy.share)}, and its interval begins at {low}"
    needed = math.ceil(Z**2 * at_least * (1 - at_least) / (accuracy.share - at_least) ** 2)
    return False, (
        f"{accuracy.photos:,} photos do not show that the accuracy is at least {wanted}: its interval begins at {low}; "
        f"about {needed:,} photos would, if as many of them are right"
    )
