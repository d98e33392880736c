"""What the prediction log says of a candidate that was asked beside the live version: is it worse?

No answer of the candidate counts against it, each photo counts once, and only what can be known yet is said: operate/anytime.py.
"""

import csv
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

import numpy as np

from operate.anytime import ALPHA, Counts, Range, confidence_sequence, evidence_above, evidence_below, refutes

SETTLE = timedelta(seconds=30)  # the gateway asks after the answer is out, and a candidate may take 12 seconds
KEPT = 5  # rotated files beside a log
NOT_WORSE, WORSE, UNKNOWN = "not worse", "worse", "not known yet"


class ShadowError(ValueError):
    """This cannot be compared; the text says why and what to do."""


@dataclass(frozen=True)
class Question:
    """Which versions are compared, and what would be too much worse."""

    candidate: str
    live: str | None = None  # the only other version, if none is named
    share: int = 10  # percent of the requests that the gateway chose: GATEWAY_SHADOW_SHARE
    margin: float = 0.01
    since: datetime | None = None
    max_age: timedelta = timedelta(hours=24)  # of the newest pair


@dataclass(frozen=True, slots=True)
class Answer:
    """What a line of the log holds, as far as it is compared."""

    id: str
    time: datetime
    label: str
    unsure: bool
    milliseconds: float
    photo: tuple[Any, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Which photo of which request: a request may have several, and a client may use an id again."""
        return self.id, *self.photo[:4]


@dataclass
class Log:
    """The lines of several files: how many a version has, and the answers to the requests that were chosen."""

    seen: Counter[str] = field(default_factory=Counter)
    chosen: dict[str, list[Answer]] = field(default_factory=dict)
    broken: int = 0
    newest: datetime | None = None


@dataclass(frozen=True)
class Pair:
    """The live version's answer, and the candidate's, if there is one."""

    live: Answer
    candidate: Answer | None

    @property
    def differ(self) -> bool:
        return self.candidate is None or self.candidate.label != self.live.label

    def lost(self, truth: str) -> int:
        """Return 1 if only the live version is right, -1 if only the candidate is, 0 otherwise."""
        return (self.live.label == truth) - (self.candidate is not None and self.candidate.label == truth)


@dataclass
class Joined:
    """What was chosen in the time that is compared, each photo once."""

    pairs: list[Pair] = field(default_factory=list)
    missing: list[Pair] = field(default_factory=list)
    pending: int = 0  # too new to be missed
    repeated: int = 0  # the same photo again
    ambiguous: int = 0  # the same photo twice under one id


@dataclass(frozen=True)
class Labelled:
    """What late labels say."""

    joined: Counter[int]
    missing: Counter[int]
    unused: int  # of no request that was compared, or of one with several photos
    unknown: int  # no version ever gives this label
    chosen_by_answer: bool


@dataclass(frozen=True)
class Report:
    """Everything that is said."""

    live: str
    candidate: str
    share: int
    margin: float
    verdict: str
    why: str
    since: datetime | None
    until: datetime | None
    lines: dict[str, int]
    broken_lines: int
    chosen: int
    compared: int
    missing: int
    pending: int
    repeated: int
    ambiguous: int
    disagreement: Range
    unsure: dict[str, float | None]
    unsure_difference: Range
    milliseconds: dict[str, dict[str, float | None]]
    labels: dict[str, Any] | None


def is_chosen(request_id: str, share: int) -> bool:
    """Tell whether the gateway asks the candidate too: the rule of gateway.lua."""
    return zlib.crc32(request_id.encode()) % 100 < share


def read_log(paths: Iterable[Path], share: int, since: datetime | None = None) -> Log:
    log = Log()
    for line in lines_of(paths):
        try:
            version, answer = parse(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            log.broken += 1
            continue
        if since and answer.time < since:
            continue
        log.seen[version] += 1
        log.newest = max(log.newest or answer.time, answer.time)
        if is_chosen(answer.id, share):
            log.chosen.setdefault(version, []).append(answer)
    return log


def lines_of(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of each log, those of its rotated files first; a file that is renamed meanwhile is read once."""
    with ExitStack() as stack:
        files: dict[tuple[int, int], IO[bytes]] = {}
        for path in paths:
            rotated = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
            for one in (path, *(other for other in rotated if other.exists())):
                file: IO[bytes] = stack.enter_context(one.open("rb"))
                facts = os.fstat(file.fileno())
                files.setdefault((facts.st_dev, facts.st_ino), file)
        for file in reversed(files.values()):
            yield from (line for line in file if line.strip())


def parse(line: bytes) -> tuple[str, Answer]:
    """Return a line's version and answer; ValueError, KeyError or TypeError for what the handler does not write."""
    entry = json.loads(line)
    photo, times = entry["photo"], entry["milliseconds"]
    known = tuple(photo.pop(name) for name in ("format", "width", "height", "bytes"))
    moment = datetime.fromisoformat(entry["time"])
    answer = Answer(
        id=entry["request_id"], time=moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc), label=entry["label"],
        unsure=entry["unsure_because"] is not None, milliseconds=float(times["decode"] + times["model"]),
        photo=(*known, *photo.values()),
    )  # fmt: skip
    texts = (answer.id, answer.label, entry["version"])
    if not all(isinstance(text, str) and text for text in texts) or not math.isfinite(answer.milliseconds):
        raise ValueError("no line of a prediction log")
    hash(answer.photo)  # TypeError where it holds lists
    return entry["version"], answer


def read_labels(path: Path) -> dict[str, str | None]:
    """Return each request's label, or nothing where the file contradicts itself."""
    labels: dict[str, str | None] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"request_id", "label"} <= set(reader.fieldnames or ()):
            raise ShadowError(f"{path} has no columns request_id and label; its first line must name them")
        for row in reader:
            name, label = row["request_id"], row["label"]
            if not name or not label:
                raise ShadowError(f"{path}, line {reader.line_num}: request_id or label is missing")
            labels[name] = label if labels.get(name, label) == label else None
    return labels


def compare(log: Log, question: Question, now: datetime, labels: dict[str, str | None] | None = None) -> Report:
    """Return what is known; a pass needs fresh answers of both versions."""
    live = question.live or only_other(log, question.candidate)
    joined = join(log, live, question)
    judged = judge_labels(joined, labels, log) if labels is not None else None
    verdict, why = judge(joined, judged, question, live, now)
    answers = {
        live: [pair.live for pair in joined.pairs],
        question.candidate: [pair.candidate for pair in joined.pairs if pair.candidate],
    }
    times = [pair.live.time for pair in joined.pairs]
    return Report(
        live=live, candidate=question.candidate, share=question.share, margin=question.margin, verdict=verdict, why=why,
        since=min(times, default=None), until=max(times, default=None),
        lines={version: log.seen[version] for version in (live, question.candidate)}, broken_lines=log.broken,
        chosen=len(joined.pairs) + len(joined.missing) + joined.pending + joined.repeated + joined.ambiguous,
        compared=len(joined.pairs), missing=len(joined.missing), pending=joined.pending, repeated=joined.repeated,
        ambiguous=joined.ambiguous,
        disagreement=confidence_sequence(shares(pair.differ for pair in joined.pairs)),
        unsure={version: mean([answer.unsure for answer in some]) for version, some in answers.items()},
        unsure_difference=confidence_sequence(differences(
            pair.candidate.unsure - pair.live.unsure for pair in joined.pairs if pair.candidate
        )),
        milliseconds={version: spread([answer.milliseconds for answer in some]) for version, some in answers.items()},
        labels=about_labels(judged) if judged else None,
    )  # fmt: skip


def only_other(log: Log, candidate: str) -> str:
    others = sorted(set(log.seen) - {candidate})
    if len(others) != 1:
        found = ", ".join(others) if others else "none"
        raise ShadowError(f"the log must hold one version beside {candidate}, and holds {found}; name the live one with --live")
    return others[0]


def join(log: Log, live: str, question: Question) -> Joined:
    """Pair the answers to each photo of each request that was chosen, in the order of time."""
    ours, theirs = log.chosen.get(live, []), log.chosen.get(question.candidate, [])
    counts = {side: Counter(answer.key for answer in answers) for side, answers in (("live", ours), ("candidate", theirs))}
    answered = {answer.key: answer for answer in theirs}
    begin = question.since or min((answer.time for answer in ours if answer.key in answered), default=None)
    joined, photos = Joined(), set()
    for answer in sorted(ours, key=lambda one: one.time):
        if begin is None or answer.time < begin:
            continue
        pair = Pair(answer, answered.get(answer.key))
        if max(counts["live"][answer.key], counts["candidate"][answer.key]) > 1:
            joined.ambiguous += 1
        elif pair.candidate is None and log.newest and answer.time > log.newest - SETTLE:
            joined.pending += 1
        elif answer.photo in photos:
            joined.repeated += 1
        else:
            photos.add(answer.photo)
            (joined.pairs if pair.candidate else joined.missing).append(pair)
    return joined


def judge_labels(joined: Joined, labels: dict[str, str | None], log: Log) -> Labelled:
    """Count who is right alone, over the photos whose label is known."""
    known = {answer.label for answers in log.chosen.values() for answer in answers}
    photos_of = Counter(pair.live.id for pair in (*joined.pairs, *joined.missing))
    usable = {name: label for name, label in labels.items() if label in known and photos_of[name] == 1}

    def lost(pairs: list[Pair]) -> Counter[int]:
        return Counter(pair.lost(str(usable[pair.live.id])) for pair in pairs if pair.live.id in usable)

    unknown = sum(label is not None and label not in known for label in labels.values())
    here = shares(pair.differ for pair in joined.pairs if pair.live.id in usable)
    elsewhere = shares(pair.differ for pair in joined.pairs if pair.live.id not in usable)
    some, others = confidence_sequence(here), confidence_sequence(elsewhere)
    return Labelled(
        lost(joined.pairs), lost(joined.missing), len(labels) - unknown - len(usable), unknown,
        chosen_by_answer=some.low > others.high or others.low > some.high,
    )  # fmt: skip


def judge(joined: Joined, labels: Labelled | None, question: Question, live: str, now: datetime) -> tuple[str, str]:
    """Return the verdict and its reason: two ways to pass share alpha, and one to fail has its own."""
    candidate = question.candidate
    if not joined.pairs:
        return (
            UNKNOWN,
            f"no photo has an answer of {live} and of {candidate}: is GATEWAY_SHADOW={candidate} set, and is --share right?",
        )
    usable = labels if labels and not labels.chosen_by_answer else None
    disagreement = shares(pair.differ for pair in (*joined.pairs, *joined.missing))
    by_answers = refutes(evidence_below(question.margin, disagreement), ALPHA / 2)
    by_labels = usable is not None and refutes(evidence_below(question.margin, three(usable.joined + usable.missing)), ALPHA / 2)
    newest = max(pair.live.time for pair in joined.pairs)
    points = in_points(question.margin)
    if (by_answers or by_labels) and now - newest > question.max_age:
        return UNKNOWN, f"stale: the newest pair is of {newest:%Y-%m-%d %H:%M} UTC; log newer traffic, or raise --max-age"
    if by_answers:
        return NOT_WORSE, f"the two give different labels, or {candidate} none, for less than {points} of the photos"
    if by_labels:
        return NOT_WORSE, f"by the labels, {candidate} is right less often by less than {points}"
    if usable and refutes(evidence_above(0, three(usable.joined))):
        return WORSE, f"by the labels, {candidate} is wrong alone more often than {live} is"
    return UNKNOWN, still_missing(joined, labels)


def still_missing(joined: Joined, labels: Labelled | None) -> str:
    """Return what keeps the verdict open."""
    asked = len(joined.pairs) + len(joined.missing)
    if len(joined.missing) > asked / 20:
        return (
            f"{len(joined.missing):,} of {asked:,} photos have no answer of the candidate: it is slow, down or refuses them, the "
            "gateway found no room, or --share is not what the gateway has"
        )
    if labels and labels.chosen_by_answer:
        return "photos on which the two differ have labels more or less often than others: label photos whatever was answered"
    if labels is None:
        return "more photos are needed; labels for some of them tell more (--labels)"
    return "more photos, or more labels, are needed"


def about_labels(labels: Labelled) -> dict[str, Any]:
    return {
        "photos": labels.joined.total(),
        "only_live_right": labels.joined[1],
        "only_candidate_right": labels.joined[-1],
        "without_answer": labels.missing.total(),
        "unused": labels.unused,
        "unknown": labels.unknown,
        "chosen_by_answer": labels.chosen_by_answer,
        "worse_by": confidence_sequence(three(labels.joined)),
    }


def shares(values: Iterable[bool]) -> Counts:
    counts = Counter(values)
    return {0: counts[False], 1: counts[True]}


def differences(values: Iterable[int]) -> Counts:
    return three(Counter(values))


def three(counts: Counter[int]) -> Counts:
    return {value: counts[value] for value in (-1, 0, 1)}


def mean(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def spread(values: list[float]) -> dict[str, float | None]:
    return {name: float(np.quantile(values, point)) if values else None for name, point in (("p50", 0.5), ("p99", 0.99))}


def as_json(report: Report) -> str:
    """Return the report as one JSON object; what is not known is null."""
    return json.dumps(plain(asdict(report)), ensure_ascii=False, indent=2)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return None if isinstance(value, float) and math.isnan(value) else value


def describe(report: Report) -> list[str]:
    """Return the report for people, the verdict last."""
    live, candidate = report.live, report.candidate
    lines = [
        f"{candidate} beside {live}, {period(report)}",
        f"lines         {report.lines[live]:,} of {live}, {report.lines[candidate]:,} of {candidate}, {report.broken_lines:,} broken",
        f"photos        {report.chosen:,} chosen ({report.share} %), {report.compared:,} compared, {report.missing:,} without an answer of "
        f"{candidate}; left out: {report.repeated:,} repeated, {report.ambiguous:,} ambiguous, {report.pending:,} too new",
    ]
    if report.compared:
        unsure, times = report.unsure, report.milliseconds
        lines += [
            f"disagreement  {percent(report.disagreement)}",
            f"unsure        {percents(unsure[live])} -> {percents(unsure[candidate])}: {points(report.unsure_difference)}",
            f"milliseconds  p50 {number(times[live]['p50'])} -> {number(times[candidate]['p50'])}, "
            f"p99 {number(times[live]['p99'])} -> {number(times[candidate]['p99'])}",
        ]
    if report.labels is not None:
        lines.append(about(report.labels, live, candidate))
    verdict = f"not worse by {in_points(report.margin)} or more" if report.verdict == NOT_WORSE else report.verdict
    return [*lines, f"verdict       {verdict}: {report.why}"]


def period(report: Report) -> str:
    if not report.since or not report.until:
        return "nothing to compare"
    begin, end = (moment.astimezone(timezone.utc) for moment in (report.since, report.until))
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC; ranges hold at all moments together with 95 %"


def about(labels: dict[str, Any], live: str, candidate: str) -> str:
    if not labels["photos"]:
        told = "no label is of a photo that was compared"
    else:
        told = (
            f"{labels['photos']:,} photos with a label; only {live} right {labels['only_live_right']:,}, only {candidate} right "
            f"{labels['only_candidate_right']:,}: worse by {points(labels['worse_by'])}"
        )
    return f"labels        {told}; {labels['unused']:,} unused, {labels['unknown']:,} that no version gives"


def in_points(margin: float) -> str:
    return f"{100 * margin:g} point{'' if round(100 * margin, 6) == 1 else 's'}"


def percent(share: Range) -> str:
    return f"{100 * share.mean:.2f} % [{100 * share.low:.2f}-{100 * share.high:.2f} %]"


def points(difference: Range) -> str:
    return f"{100 * difference.mean:+.2f} points [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def percents(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
