"""Folders, zips or lists of photos -> data/manifest.csv: every photo's label, split and verdict. Nothing is deleted."""

import argparse
import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from handler.photo_input import open_photo, to_rgb
from training.config import PARAMS, Params, load_params
from training.duplicates import THUMBNAIL, groups, perceptual_hash, similar_pairs, thumbnail
from training.errors import UserError, run_cli
from training.files import write_atomically
from training.paths import MANIFEST
from training.photos import list_files, read_bytes
from training.processes import start_pool
from training.sources import KAGGLE, OXFORD, photos_at

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "training_set": "train",
    "val": "val", "valid": "val", "validation": "val", "validation_set": "val",
    "test": "test", "testing": "test", "test_set": "test",
}  # fmt: skip
EXTENSIONS = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
FLAT_NAME = re.compile(r"(?P<label>\D+?)[ ._-]*\(?\d+\)?$")  # cat.0, dog_12, cat (3)
# what cameras, phones and programs call photos: no labels
DEVICE_NAMES = {
    "capture", "dji", "download", "dsc", "dscf", "dscn", "file", "frame", "gopr", "image", "img", "imgp", "mvimg", "p", "photo",
    "pic", "picture", "pxl", "scan", "screenshot", "unnamed", "untitled", "wp",
}  # fmt: skip
LEAST = 5  # photos of each label in each split
HELD_OUT = 10  # photos of a label, about, that validate, and as many that test, as soon as that is at most a fifth of them
LINE = (9, 7, 5, 3, 1, 0, 2, 4, 6, 8)  # the tenths of all photos as they stand in a label's line: test first, validation last
NAMED = 10  # labels that a message names


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file. `split` is empty unless the verdict is ok."""

    path: str
    label: str
    split: str
    sha256: str
    width: int
    height: int
    phash: str
    verdict: str


class Found(NamedTuple):
    """A file before it is opened: where, and what its folders say."""

    path: str
    label: str
    given_split: str


class Manifest:
    """All rows, in the order of their paths."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: row.path)
        self.labels = sorted({row.label for row in self.rows if row.split})

    def split(self, name: str) -> list[Row]:
        """Return the rows of train, val or test."""
        return [row for row in self.rows if row.split == name]

    @property
    def digest(self) -> str:
        """Name the photos, labels and splits, wherever the files lie."""
        lines = sorted(f"{row.sha256},{row.label},{row.split}" for row in self.rows if row.split)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def require_weights(self, path: Path, saved: dict[str, Any]) -> None:
        """Refuse weights that learned from other photos: what they trained on could be measured here."""
        if saved["labels"] != self.labels:
            raise UserError(f"{path} knows {', '.join(saved['labels'])}, the manifest {', '.join(self.labels)}; train again")
        if saved["data_digest"] != self.digest:
            raise UserError(
                f"{path} was trained on other photos or splits than the manifest has: its test photos may be among them; "
                "train again (`make train FRESH=1`)"
            )

    def summary(self) -> str:
        """Say in a line or two what there is."""
        counts = {split: len(self.split(split)) for split in SPLITS}
        left_out: dict[str, int] = defaultdict(int)
        for row in self.rows:
            if not row.split:
                left_out[row.verdict.replace("_", " ")] += 1
        used = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        rest = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(left_out.items())) or "nothing"
        return f"{len(self.rows):,} files, labels {', '.join(self.labels)}: {used}; left out: {rest}"

    def write(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        write_atomically(path, text.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [as_row(line) for line in csv.DictReader(file)]
        except FileNotFoundError:
            raise UserError(f"no manifest at {path}; make one with `make data PHOTOS=folder-or-zip`") from None
        except (TypeError, KeyError, ValueError, csv.Error) as error:
            raise UserError(f"{path} is not a manifest ({error}); make a new one with `make data`") from None
        return cls(rows)


def as_row(line: dict[str, str]) -> Row:
    """Return a line of the file as a row."""
    values: dict[str, Any] = {**line, "width": int(line["width"]), "height": int(line["height"])}
    return Row(**values)


def build_manifest(*places: Path, keep_splits: bool = False) -> Manifest:
    """Look at every photo of these places and decide what it is and where it belongs."""
    found = list({item.path: item for place in places for item in find_photos(place)}.values())
    rows, thumbnails = inspect(found)
    rows = judge(rows)
    if keep_splits:
        given = {item.path: item.given_split for item in found}
        rows = [replace(row, split=given[row.path]) if row.split and given[row.path] else row for row in rows]
    alike = look_alikes(rows, thumbnails)
    rows = separate_look_alikes(rows, alike)
    if not keep_splits:
        rows = hold_out_enough(rows, alike)
    return checked(Manifest(rows), " and ".join(map(str, places)))


def find_photos(photos: Path) -> list[Found]:
    """Return the files with their labels; the layout is found by looking, and a file without a label is refused."""
    if photos.suffix.lower() == ".csv":
        return listed_photos(photos)
    names = list_files(photos)
    pictures = [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    if not pictures:
        raise UserError(f"no photos in {photos}: looked for {', '.join(sorted(EXTENSIONS))} in it and its sub-folders")
    if unnameable := [name for name in pictures if not is_text(name)]:
        raise UserError(f"the name of {unnameable[0]!r} in {photos} is not UTF-8, and {len(unnameable) - 1:,} more; rename them")
    base = photos.as_posix()
    found = [Found(f"{base}/{name}", *label_and_split(name)) for name in pictures]
    if unlabelled := [item.path for item in found if not item.label]:
        raise UserError(
            f"{len(unlabelled):,} of the {len(found):,} photos in {photos} have no label, the first is {unlabelled[0]}: "
            f"put photos into {photos}/<label>/, or name them <label>.1.jpg"
        )
    return found


def listed_photos(table: Path) -> list[Found]:
    """Return the photos of a CSV with the columns photo, label; their paths begin at the CSV's folder."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from None
    if not lines:
        raise UserError(f"{table} lists no photos; it needs a line `photo,label` and then a line for each photo")
    found = []
    for number, line in enumerate(lines, 2):
        photo, label = line.get("photo"), tidy(line.get("label") or "")
        if not photo or not label:
            raise UserError(f"line {number} of {table} has no photo or no label; its columns must be called photo and label")
        found.append(Found((table.parent / photo).as_posix(), label, ""))
    return found


def is_text(name: str) -> bool:
    """Names in Latin-1, out of old archives, cannot be written into a manifest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def label_and_split(name: str) -> tuple[str, str]:
    """Return what a relative path says: .../train/cat/1.jpg, PetImages/Cat/1.jpg, cat/1.jpg or cat.1.jpg."""
    *folders, file = name.split("/")
    split = next((SPLIT_FOLDERS[folder.lower()] for folder in folders if folder.lower() in SPLIT_FOLDERS), "")
    label_folders = [folder for folder in folders if folder.lower() not in SPLIT_FOLDERS]
    if folders and folders[-1].lower() not in SPLIT_FOLDERS and not generic(folders[-1]):
        return tidy(label_folders[-1]), split
    return flat_label(PurePosixPath(file).stem), split


def flat_label(stem: str) -> str:
    """Return the label in a file's own name, or nothing: IMG_2041, 20240501_1200 and 3f2a9c name no label."""
    match = FLAT_NAME.match(stem)
    label = tidy(match["label"]) if match else ""
    return "" if label.strip("_-. ").lower() in {"", *DEVICE_NAMES} else label


def generic(folder: str) -> bool:
    """Folders that hold flat files: their name is no label."""
    return folder.lower() in ("images", "photos", "petimages", "data", "dataset")


def tidy(label: str) -> str:
    """Return the folder's name as a label: NFC, no outer spaces; `Cat` and `CAT` are `cat`, other scripts stay."""
    text = " ".join(unicodedata.normalize("NFC", label).split())
    return text.lower() if text.isascii() else text


def inspect(found: list[Found]) -> tuple[list[Row], np.ndarray]:
    """Open every file, in as many processes as there are cores."""
    thumbnails = np.zeros((len(found), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    rows = []
    with start_pool() as pool:
        results = pool.map(inspect_file, found, chunksize=64)
        for index, (row, small) in enumerate(
            tqdm(results, total=len(found), desc="looking at photos", unit="photo", disable=None)
        ):
            rows.append(row)
            thumbnails[index] = small
    return rows, thumbnails


def inspect_file(item: Found) -> tuple[Row, np.ndarray]:
    """Return what one file is by itself, and its thumbnail."""
    row = Row(path=item.path, label=item.label, split="", sha256="", width=0, height=0, phash="", verdict="unreadable")
    try:
        data = read_bytes(item.path)
        row = replace(row, sha256=hashlib.sha256(data).hexdigest())
        photo = to_rgb(open_photo(data))
    except Exception:  # zip files and Pillow raise a dozen types
        return row, np.zeros((THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    verdict = "ok" if is_photo(photo.resize((64, 64))) else "not_a_photo"
    phash = f"{perceptual_hash(photo):016x}"
    return replace(row, width=photo.width, height=photo.height, phash=phash, verdict=verdict), thumbnail(photo)


def is_photo(small: Image.Image) -> bool:
    """Tell photos from cards, logos and blank pictures; a photo on a white page is still one.

    Measured on 22,589 shelter photos: six files are refused, none of them a photo.
    """
    colours = np.asarray(small) // 32
    _, counts = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)
    largest = counts.max() / counts.sum()
    return not (largest > 0.9 or (largest > 0.6 and (counts > 4).sum() <= 8))


def place_in_line(sha256: str) -> float:
    """Return where a photo's content puts it among all photos of its label: from 0 to below 10."""
    return LINE.index(int(sha256[:8], 16) % 10) + int(sha256[8:16], 16) / 2**32


def own_split(sha256: str, count: int) -> str:
    """Return a photo's split by its content, of `count` photos of its label.

    The front of the line tests, its end validates: a fifth each of up to 50 photos, about 10 photos each of 50 to 100,
    a tenth each of more. Then `hold_out_enough` takes the next in line where fewer than 5 are held out. Neither share nor
    number grows with the photos, so that adding photos never moves a photo from train to val or test, nor between these.
    A photo of few may move from val or test to train. There is one exception: where an added photo equals or resembles a
    held-out one, one of the two is left out, and the next in line may take its place.
    """
    tenths = min(2.0, max(1.0, 10 * HELD_OUT / count))
    place = place_in_line(sha256)
    return "test" if place < tenths else "val" if place >= 10 - tenths else "train"


def judge(rows: list[Row]) -> list[Row]:
    """Mark exact duplicates and photos under two labels; give the others their split."""
    judged = list(rows)
    same: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.verdict == "ok":
            same[row.sha256].append(index)
    for members in same.values():
        one_label = len({rows[index].label for index in members}) == 1
        for position, index in enumerate(members):
            verdict = "two_labels" if not one_label else "duplicate" if position else "ok"
            judged[index] = replace(rows[index], verdict=verdict)
    count = Counter(row.label for row in judged if row.verdict == "ok")
    return [replace(row, split=own_split(row.sha256, count[row.label])) if row.verdict == "ok" else row for row in judged]


def look_alikes(rows: list[Row], thumbnails: np.ndarray) -> list[list[int]]:
    """Return the groups of near-duplicates among the rows that have a split, by their places."""
    used = [index for index, row in enumerate(rows) if row.split]
    hashes = np.array([int(rows[index].phash, 16) for index in used], dtype=np.uint64)
    return [[used[index] for index in group] for group in groups(len(used), similar_pairs(hashes, thumbnails[used]))]


def separate_look_alikes(rows: list[Row], alike: list[list[int]]) -> list[Row]:
    """Keep each group of near-duplicates in one split: the held-out one, so that those stay what they were."""
    separated = list(rows)
    for members in alike:
        one_label = len({rows[index].label for index in members}) == 1
        keeper = max((rows[index].split for index in members), key=SPLITS.index)
        for index in members:
            if not one_label:
                separated[index] = replace(rows[index], verdict="two_labels", split="")
            elif rows[index].split != keeper:
                separated[index] = replace(rows[index], verdict="near_duplicate", split="")
    return separated


def hold_out_enough(rows: list[Row], alike: list[list[int]]) -> list[Row]:
    """Move the next in line out of train where a label has too few photos in test or val; look-alikes are left out then."""
    moved = list(rows)
    group_of = {index: group for group in alike for index in group}
    count = Counter((row.label, row.split) for row in rows)
    for label in sorted({row.label for row in rows if row.split}):
        for split in ("test", "val"):
            for _ in range(LEAST - count[label, split]):
                index = next_in_line(moved, label, split)
                if index is None:
                    break
                for other in group_of.get(index, []):
                    if moved[other].split:
                        moved[other] = replace(moved[other], verdict="near_duplicate", split="")
                moved[index] = replace(rows[index], split=split)
    return moved


def next_in_line(rows: list[Row], label: str, split: str) -> int | None:
    """Return which training photo of the label stands nearest to the split's end of the line."""
    line = [index for index, row in enumerate(rows) if (row.label, row.split) == (label, "train")]
    nearest = min if split == "test" else max
    return nearest(line, key=lambda index: place_in_line(rows[index].sha256), default=None)


def checked(manifest: Manifest, photos: str) -> Manifest:
    """Refuse what nothing can be trained on."""
    if not any(row.phash for row in manifest.rows):
        raise UserError(f"none of the {len(manifest.rows):,} files in {photos} can be read as a photo")
    if len(manifest.labels) < 2:
        names = ", ".join(manifest.labels) or "none"
        raise UserError(f"two labels or more are needed, found {names}: put photos into {photos}/<label>/")
    if lacking := what_is_lacking(manifest):
        more = f"; and {len(lacking) - NAMED} more labels" if len(lacking) > NAMED else ""
        raise UserError(f"each label needs {LEAST} usable photos in each split: {'; '.join(lacking[:NAMED])}{more}")
    return manifest


def what_is_lacking(manifest: Manifest) -> list[str]:
    """Say of each label that has too few photos how many it has, and how many are missing where."""
    count = Counter((row.label, row.split) for row in manifest.rows)
    lacking = []
    for label in sorted({row.label for row in manifest.rows}):
        missing = {split: LEAST - count[label, split] for split in SPLITS if count[label, split] < LEAST}
        if missing:
            usable = sum(count[label, split] for split in SPLITS)
            places = ", ".join(f"{number} in {split}" for split, number in missing.items())
            lacking.append(f"{label} has {usable} and lacks {sum(missing.values())} ({places})")
    return lacking


def main(argv: list[str] | None = None) -> None:
    from training.data_report import write_data_report  # noqa: PLC0415  (it reads manifests, so it imports this module)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "photos",
        nargs="*",
        help=f"folder, zip, CSV with the columns photo and label, {OXFORD}, or {KAGGLE}owner/dataset; several are taken together; "
        "data.photos of params.yaml if none is named",
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    parser.add_argument(
        "--output", type=Path, default=MANIFEST, help="list of photos to write; the data report is written beside it"
    )
    parser.add_argument("--keep-splits", action="store_true", help="keep train/val/test folders as they are given")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    keep_splits = args.keep_splits or params.data.keep_splits
    places = [photos_at(place) for place in args.photos or [params.data.photos]]
    manifest = build_manifest(*places, keep_splits=keep_splits)
    report = args.output.parent / "report"
    write_data_report(manifest, report)
    manifest.write(args.output)
    print(manifest.summary())
    look_for_doubts(manifest, report, params)


def look_for_doubts(manifest: Manifest, report: Path, params: Params) -> None:
    """List doubtful labels where that takes at most a minute or two; else say how to."""
    from training import doubtful  # noqa: PLC0415  (it reads manifests, so it imports this module)

    photos = sum(bool(row.split) for row in manifest.rows)
    if photos <= params.data.doubtful_up_to and doubtful.can_look():
        doubtful.look(manifest, report, params.train.image_size)
    elif params.data.doubtful_up_to:
        print("doubtful labels were not looked for: `make doubtful` does it, in about a minute for 5,000 photos")


if __name__ == "__main__":
    run_cli(main)
