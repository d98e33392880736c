"""A manifest -> its test photos as a folder with one sub-folder a label: what a running server can be asked about."""

import argparse
from pathlib import Path, PurePosixPath

from training.errors import run_cli
from training.files import write_atomically
from training.manifest import Manifest, Row, place_in_line
from training.paths import MANIFEST
from training.photos import read_bytes


def copy_test_photos(manifest: Manifest, folder: Path, at_most: int) -> int:
    """Copy the test photos, the same at each call; returns how many there are."""
    rows = sorted(manifest.split("test"), key=lambda row: place_in_line(row.sha256))[:at_most]
    for row in rows:
        if not (path := place_of(row, folder)).exists():
            write_atomically(path, read_bytes(row.path))
    return len(rows)


def place_of(row: Row, folder: Path) -> Path:
    """Return where a photo goes: two of one name may come from two folders."""
    return folder / row.label / f"{row.sha256[:16]}{PurePosixPath(row.path).suffix.lower()}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--at-most", type=int, default=2000, help="photos; the first ones of a fixed order")
    args = parser.parse_args(argv)
    count = copy_test_photos(Manifest.read(args.manifest), args.folder, args.at_most)
    print(f"{count:,} test photos are in {args.folder}")


if __name__ == "__main__":
    run_cli(main)
