"""A folder or zip of photos -> data/manifest.csv: every photo's label, split and verdict. Nothing is deleted."""

import argparse
import csv
import hashlib
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from handler.photo_input import InvalidPhoto, open_photo, to_rgb
from training.config import PARAMS, load_params
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
FLAT_NAME = re.compile(r"(?P<label>.+?)[._-]?\d+$")


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


def build_manifest(photos: Path, *, keep_splits: bool = False) -> Manifest:
    """Look at every file under `photos` and decide what it is and where it belongs."""
    found = find_photos(photos)
    rows, thumbnails = inspect(found)
    rows = judge(rows)
    if keep_splits:
        given = {item.path: item.given_split for item in found}
        rows = [replace(row, split=given[row.path]) if row.split and given[row.path] else row for row in rows]
    rows = separate_look_alikes(rows, thumbnails)
    return checked(Manifest(rows), photos)


def find_photos(photos: Path) -> list[Found]:
    """Return the files with their labels; the layout is found by looking."""
    names = list_files(photos)
    pictures = [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    if not pictures:
        raise UserError(f"no photos in {photos}: looked for {', '.join(sorted(EXTENSIONS))} in it and its sub-folders")
    base = photos.as_posix()
    return [Found(f"{base}/{name}", *label_and_split(name)) for name in pictures]


def label_and_split(name: str) -> tuple[str, str]:
    """Return what a relative path says: .../train/cat/1.jpg, PetImages/Cat/1.jpg, cat/1.jpg or cat.1.jpg."""
    *folders, file = name.split("/")
    split = next((SPLIT_FOLDERS[folder.lower()] for folder in folders if folder.lower() in SPLIT_FOLDERS), "")
    label_folders = [folder for folder in folders if folder.lower() not in SPLIT_FOLDERS]
    flat = FLAT_NAME.match(PurePosixPath(file).stem)
    if folders and folders[-1].lower() not in SPLIT_FOLDERS and not generic(folders[-1]):
        return tidy(label_folders[-1]), split
    return (tidy(flat["label"]) if flat else ""), split


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
    data = read_bytes(item.path)
    sha256 = hashlib.sha256(data).hexdigest()
    row = Row(path=item.path, label=item.label, split="", sha256=sha256, width=0, height=0, phash="", verdict="unreadable")
    nothing = np.zeros((THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    try:
        photo = to_rgb(open_photo(data))
    except (InvalidPhoto, OSError, ValueError, SyntaxError, EOFError):
        return row, nothing
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


def own_split(sha256: str) -> str:
    """Return the split that a photo's content alone decides, so that adding photos never moves another."""
    tenth = int(sha256[:8], 16) % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


def judge(rows: list[Row]) -> list[Row]:
    """Mark exact duplicates and photos under two labels; give the others their split."""
    judged = list(rows)
    same: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.verdict == "ok":
            same[row.sha256].append(index)
    for sha256, members in same.items():
        one_label = len({rows[index].label for index in members}) == 1
        for position, index in enumerate(members):
            verdict = "two_labels" if not one_label else "duplicate" if position else "ok"
            judged[index] = replace(rows[index], verdict=verdict, split=own_split(sha256) if verdict == "ok" else "")
    return judged


def separate_look_alikes(rows: list[Row], thumbnails: np.ndarray) -> list[Row]:
    """Keep each group of near-duplicates in one split: the held-out one, so that those stay what they were."""
    separated = list(rows)
    used = [index for index, row in enumerate(rows) if row.split]
    hashes = np.array([int(rows[index].phash, 16) for index in used], dtype=np.uint64)
    for group in groups(len(used), similar_pairs(hashes, thumbnails[used])):
        members = [used[index] for index in group]
        one_label = len({rows[index].label for index in members}) == 1
        keeper = max((rows[index].split for index in members), key=SPLITS.index)
        for index in members:
            if not one_label:
                separated[index] = replace(rows[index], verdict="two_labels", split="")
            elif rows[index].split != keeper:
                separated[index] = replace(rows[index], verdict="near_duplicate", split="")
    return separated


def checked(manifest: Manifest, photos: Path) -> Manifest:
    """Refuse what nothing can be trained on."""
    if not any(row.phash for row in manifest.rows):
        raise UserError(f"none of the {len(manifest.rows):,} files in {photos} can be read as a photo")
    if len(manifest.labels) < 2:
        names = ", ".join(manifest.labels) or "none"
        raise UserError(f"two labels or more are needed, found {names}: put photos into {photos}/<label>/")
    return manifest


def main(argv: list[str] | None = None) -> None:
    from training.data_report import write_data_report  # noqa: PLC0415  (it reads manifests, so it imports this module)

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "photos", nargs="?", help=f"folder, zip, {OXFORD}, or {KAGGLE}owner/dataset; default: data.photos of params.yaml"
    )
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--output", type=Path, default=MANIFEST)
    parser.add_argument("--keep-splits", action="store_true", help="keep train/val/test folders as they are given")
    args = parser.parse_args(argv)
    config = load_params(args.params).data
    manifest = build_manifest(photos_at(args.photos or config.photos), keep_splits=args.keep_splits or config.keep_splits)
    write_data_report(manifest, args.output.parent / "report")
    manifest.write(args.output)
    print(manifest.summary())


if __name__ == "__main__":
    run_cli(main)
