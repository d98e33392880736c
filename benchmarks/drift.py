"""After how many photos does scripts/drift.py find a change, and how often does it find one where nothing changed?

Photos are read, judged and logged by the handler's own code, as they are and changed. Streams are drawn from these lines.
"""

import argparse
import hashlib
import io
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import training  # noqa: F401  before torch: it decides how OpenMP's threads wait

# isort: split
import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.record import write_record
from handler.batch import Answerer
from handler.classifier import Classifier
from handler.lanes import Lanes
from handler.photo_input import open_photo, to_rgb
from handler.prediction_log import PredictionLog
from handler.question import Request
from handler.recent import Recent
from handler.recorder import Recorder
from handler.telemetry import Telemetry
from operate.drift import CHANCE, EVERY, REFERENCE, Columns, Difference, Look, PhotosBefore, Reference, findings, look
from operate.drift_watch import references_of_model
from operate.photo_log import PhotoLog
from training.corruptions import corrupted, saved
from training.manifest import Manifest
from training.paths import MANIFEST
from training.photos import list_files, read_bytes

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "pretrained" / "petclf.pt"
CACHE = Path("build") / "drift"
BEFORE, AFTER = 2_000, 2_000  # photos of a stream on both sides of the change
OF_THE_FILE = ("width", "height", "bytes", "format")  # what a change of sender moves, whatever the photo shows
TOGETHER = 4
Change = Callable[[bytes], bytes]


class Silent(Telemetry):
    """Metrics have nowhere to go here."""

    def write(self, metrics: Any) -> None:
        """Write nothing."""


def darker(data: bytes, light: float) -> bytes:
    return saved(to_rgb(open_photo(data)).point(lambda value: int(value * light)))


def cropped(data: bytes) -> bytes:
    """Return the middle, 60 % of the area, as large as the whole was: its size must not tell."""
    photo = to_rgb(open_photo(data))
    middle = to_rgb(Image.open(io.BytesIO(corrupted(data, "cropped to the middle 60 %"))))
    return saved(middle.resize(photo.size, Image.Resampling.BICUBIC))


CHANGES: dict[str, Change] = {
    "darker: 0.6 of the light": lambda data: darker(data, 0.6),
    "a little darker: 0.85 of the light": lambda data: darker(data, 0.85),
    "blurred": lambda data: corrupted(data, "blurred"),
    "cropped": cropped,
    "saved again as JPEG, nothing else": lambda data: saved(to_rgb(open_photo(data))),
    "JPEG quality 30": lambda data: corrupted(data, "JPEG quality 30"),
}


def log_of(name: str, photos: list[str], change: Change | None, folder: Path) -> Columns:
    """Return the photos' log lines as drift.py reads them; they are computed once."""
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:8]}_{len(photos)}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        write_log(temporary, tqdm(photos, desc=name, unit=" photos", disable=None), change)
        temporary.replace(path)
    log = PhotoLog(path)
    columns = Columns.of(list(log.new_photos()))
    if len(columns) != len(photos):
        raise SystemExit(f"error: {path} holds {len(columns)} of {len(photos)} photos; remove it")
    return columns


def write_log(path: Path, photos: Iterable[str], change: Change | None) -> None:
    """Let the handler answer photos and log them."""
    classifier = Classifier(MODEL, "cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        answerer = Answerer(classifier, classifier.sizes(TOGETHER), None, frozenset(), Lanes(Path(folder), 1))
        version = classifier.metadata["version"]
        recent = Recent(Path(folder) / "recent", classifier.labels)
        recorder = Recorder(Silent(SimpleNamespace(), version), PredictionLog(str(path), 1 << 40), recent, {}, version)
        for some in groups(photos, TOGETHER):
            data = [change(read_bytes(photo)) if change else read_bytes(photo) for photo in some]
            _, outcome = answerer.answer([Request(str(number), body=one) for number, one in enumerate(data)])
            recorder.add(outcome)
            recorder.record()


def groups(photos: Iterable[str], size: int) -> Iterator[list[str]]:
    some: list[str] = []
    for photo in photos:
        some.append(photo)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def joined(parts: list[Columns]) -> Columns:
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    return Columns(np.arange(sum(map(len, parts)), dtype=float), values)


def drawn(pool: Columns, count: int, random: np.random.Generator) -> Columns:
    return pool.at(random.integers(0, len(pool), count))


@dataclass
class Found:
    """When a change was found in one stream: photos after it; nothing where it was not found."""

    photos: int | None = None
    photos_by_pixels: int | None = None  # by answers and pixels alone, without OF_THE_FILE
    named: tuple[str, ...] = ()
    off: int = 0  # photos between the change and where it was thought to begin


def stream(reference: Reference, usual: Columns, changed: Columns, random: np.random.Generator) -> Found:
    """Let photos change at some place between two looks, and look on until that is found."""
    start = BEFORE + int(random.integers(EVERY))
    photos = joined([drawn(usual, start, random), drawn(changed, AFTER, random)])
    result = Found()
    for end in range(BEFORE + EVERY, len(photos) + 1, EVERY):
        seen = look(reference, photos, end)
        names = [one.difference.statistic for one in findings(seen, photos)]
        if names and result.photos is None:
            result.photos, result.named = end - start, tuple(names)
            result.off = findings(seen, photos)[0].since.photo - start
        if set(names) - set(OF_THE_FILE):
            result.photos_by_pixels = end - start
            break
    return result


def row(name: str, found: list[Found]) -> str:
    named = Counter(one.named[0] for one in found if one.named)
    first = ", ".join(f"{statistic} {count}" for statistic, count in named.most_common(4))
    until = [one.photos for one in found if one.photos is not None]
    pixels = [one.photos_by_pixels for one in found if one.photos_by_pixels is not None]
    off = [abs(one.off) for one in found if one.photos is not None]
    return f"| {name} | {cells(until, len(found))} | {cells(pixels, len(found))} | {first} | {middle(off)} |"


def cells(values: list[int], count: int) -> str:
    within = sum(value <= 500 for value in values)
    later = f"; {len(values)} of {count} within {AFTER - EVERY:,}" if within < count else ""
    return f"{within} of {count}{later} | {middle(values)}"


def middle(values: list[int]) -> str:
    return f"{statistics.median(values):.0f} [{min(values)}-{max(values)}]" if values else "-"


@dataclass
class Alarms:
    """What came of looking at photos that did not change."""

    windows: int = 0
    looks: int = 0
    looks_with_drift: int = 0
    windows_with_drift: int = 0
    significant: int = 0  # windows that only LEAST_CHANGE kept from being called drift
    smallest: float = 1.0
    named: Counter[str] = field(default_factory=Counter)

    def add(self, seen: Look) -> None:
        full = [window for window in seen.windows if window.differences]
        differences: list[Difference] = [one for window in full for one in window.differences]
        self.looks += 1
        self.windows += len(full)
        self.looks_with_drift += seen.verdict == "drift"
        self.windows_with_drift += sum(bool(window.found) for window in full)
        self.significant += sum(any(one.p <= CHANCE and not one.found for one in window.differences) for window in full)
        self.smallest = min(self.smallest, *(one.p for one in differences))
        self.named.update(one.statistic for one in differences if one.found)


def unchanged(reference: Reference, pool: Columns, count: int, random: np.random.Generator) -> Alarms:
    photos, alarms = drawn(pool, count, random), Alarms()
    for end in tqdm(range(EVERY, count + 1, EVERY), desc="unchanged photos", unit=" looks", disable=None):
        alarms.add(look(reference, photos, end))
    return alarms


def alarm_row(name: str, alarms: Alarms) -> str:
    named = ", ".join(f"{statistic} {count}" for statistic, count in alarms.named.most_common()) or "-"
    return (
        f"| {name} | {alarms.looks:,} | {alarms.windows:,} | {alarms.looks_with_drift} | {alarms.windows_with_drift} | {named} | "
        f"{alarms.significant} | {alarms.smallest:.1g} |"
    )


@dataclass(frozen=True)
class Pools:
    """Photos as they are, and the photos of each change."""

    usual: Columns
    changed: dict[str, Columns]


def read_pools(manifest: Manifest, args: argparse.Namespace, random: np.random.Generator) -> Pools:
    folder = CACHE / hashlib.sha256(MODEL.read_bytes()).hexdigest()[:12]
    rows = sorted(manifest.split("val") + manifest.split("test"), key=lambda one: one.sha256)[: args.photos]
    usual = log_of("as they are", [one.path for one in rows], None, folder)
    changed = {
        name: log_of(name, [one.path for one in rows[: len(rows) // 4]], change, folder) for name, change in CHANGES.items()
    }
    other, cameras = (
        log_of(name, [f"{path.as_posix()}/{file}" for file in list_files(path)], None, folder)
        for name, path in (("other things", args.others), ("another camera", args.camera))
    )
    changed |= {
        "only dogs": usual.at(np.array([one.label == "dog" for one in rows])),
        "other things": other,
        "a fifth are other things": joined([drawn(usual, 4_000, random), drawn(other, 1_000, random)]),
        "another camera": cameras,
    }
    return Pools(usual, changed)


def own_reference(usual: Columns, random: np.random.Generator) -> PhotosBefore:
    return PhotosBefore("photos of the log", drawn(usual, REFERENCE, random))


def measured(pools: Pools, args: argparse.Namespace, random: np.random.Generator) -> Iterator[str]:
    """Yield the lines of the record."""
    [model] = references_of_model(MODEL).values()
    head = [
        "| change | found within 500 photos | photos until found | by answers and pixels alone | photos | surest statistic, streams | start off by, photos |",
        "|---|---|---|---|---|---|---|",
    ]
    yield f"Photos: {len(pools.usual):,} as they are; {', '.join(f'{name} {len(pool):,}' for name, pool in pools.changed.items())}."
    yield (
        f"Each stream: {BEFORE:,} photos as they are, then the change at a random place between two looks; a look after every "
        f"{EVERY} photos. {args.streams} streams of each change, drawn with replacement. Medians with their range."
    )
    yield from ("", f"Against {REFERENCE:,} photos of the log, others for each stream:", "", *head)
    for name, pool in tqdm(pools.changed.items(), desc="changes", disable=None):
        yield row(name, [stream(own_reference(pools.usual, random), pools.usual, pool, random) for _ in range(args.streams)])
    yield from ("", f"Against the reference inside the model (taken as {model.photos:,} photos):", "", *head)
    for name, pool in tqdm(pools.changed.items(), desc="changes", disable=None):
        yield row(name, [stream(model, pools.usual, pool, random) for _ in range(args.streams)])
    yield from ("", f"{args.unchanged:,} photos that do not change, for each reference:", "")
    yield f"| reference | looks | windows | looks with drift | windows with drift | in | p <= {CHANCE:g} but a small change | smallest p |"
    yield "|---|---|---|---|---|---|---|---|"
    for number in range(args.references):
        alarms = unchanged(own_reference(pools.usual, random), pools.usual, args.unchanged, random)
        yield alarm_row(f"{REFERENCE:,} photos, no. {number + 1}", alarms)
    yield alarm_row("the model's", unchanged(model, pools.usual, args.unchanged, random))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="whose validation and test photos are taken")
    parser.add_argument("--others", type=Path, required=True, help="folder or zip of photos of other things")
    parser.add_argument("--camera", type=Path, required=True, help="folder or zip of another camera's photos")
    parser.add_argument(
        "--photos", type=int, default=5_000, help="photos as they are, at most; a quarter of them are changed in each way"
    )
    parser.add_argument("--streams", type=int, default=50, help="streams of each change")
    parser.add_argument("--unchanged", type=int, default=100_000, help="photos that do not change")
    parser.add_argument("--references", type=int, default=4, help="references that unchanged photos are compared with")
    parser.add_argument("--record", action="store_true", help="keep the result")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    lines = []
    for line in measured(read_pools(Manifest.read(args.manifest), args, random), args, random):
        print(line, flush=True)
        lines.append(line)
    if args.record:
        command = "python -m benchmarks.drift --others ... --camera ... --record"
        print(write_record("drift", "Finding drift", command, lines, "seed 0"))


if __name__ == "__main__":
    main()
