"""manifest -> uint8 tensors: every photo is decoded once, by the handler's own reading, and kept in one file."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from handler import photo_input
from handler.photo_input import decode_photo
from training.errors import UserError
from training.files import replace_atomically
from training.manifest import Manifest, Row
from training.paths import CACHE
from training.photos import list_files, read_bytes
from training.processes import start_pool

HALVES = ("learn", "measure")  # of the photos of other things


def load_split(manifest: Manifest, split: str, size: int, cache: Path = CACHE) -> tuple[torch.Tensor, torch.Tensor]:
    """Return photos uint8 [N, 3, size, size] and label numbers [N] of one split, each label present."""
    rows = manifest.split(split)
    present = {row.label for row in rows}
    if missing := [label for label in manifest.labels if label not in present]:
        raise UserError(f"split {split!r} has no photo of {', '.join(missing)}; add photos and run `make data` again")
    path = cache / f"{split}-{size}-{digest(rows, size)}.npy"
    if not path.exists():
        replace_atomically(path, lambda temporary: decode_all(rows, size, temporary))
    # copy-on-write: torch wants to be able to write, and nobody does, so that pages stay shared
    photos = torch.from_numpy(np.load(path, mmap_mode="c"))
    return photos, torch.tensor([manifest.labels.index(row.label) for row in rows])


def spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return some of a split's photos or labels, out of all of it: they lie sorted by label."""
    return rows[:: max(1, len(rows) // count)][:count]


def load_others(source: Path, size: int, half: Literal["learn", "measure"]) -> torch.Tensor:
    """Return photos of other things: the half to `learn` from, or the half to `measure` with, by their content.

    The photos of the other half are not even decoded.
    """
    photos = []
    for name in list_files(source):
        data = read_bytes(f"{source.as_posix()}/{name}")
        if HALVES[int(hashlib.sha256(data).hexdigest()[:8], 16) % 2] == half:
            with suppress(photo_input.InvalidPhoto):
                photos.append(decode_photo(data, size))
    if not photos:
        raise UserError(f"too few readable photos of other things in {source}")
    return torch.stack(photos)


def digest(rows: list[Row], size: int) -> str:
    """Name what the cached pixels depend on: the photos, the size, and the code that reads them."""
    text = f"{size} {Path(photo_input.__file__).read_text()} " + " ".join(row.sha256 for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decode_all(rows: list[Row], size: int, path: Path) -> None:
    """Decode the photos in as many processes as there are cores, straight into the file."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(rows), 3, size, size))
    if hasattr(os, "posix_fallocate"):  # take the room now: later, a full disk would end the process without a word
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    for index, photo in enumerate(
        tqdm(decoded(rows, size), total=len(rows), desc=f"reading at {size} px", unit="photo", disable=None)
    ):
        pixels[index] = photo
    pixels.flush()


def decoded(rows: list[Row], size: int) -> Iterator[np.ndarray]:
    """Yield the rows' photos in order."""
    yield from pool().map(decode_row, (row.path for row in rows), [size] * len(rows), chunksize=32)


@lru_cache(maxsize=1)
def pool() -> ProcessPoolExecutor:
    """One process a core, kept for several readings: starting them takes seconds.

    Spawned, not forked: a fork of a process whose torch threads have started hangs in its first tensor operation.
    """
    return start_pool("spawn")


def close_pool() -> None:
    """End the processes that read photos, when all are read: each holds a quarter of a gigabyte."""
    if pool.cache_info().currsize:
        pool().shutdown()
        pool.cache_clear()


def decode_row(path: str, size: int, change: Callable[[bytes], bytes] | None = None) -> np.ndarray:
    """Return one photo's pixels as the server reads them; a photo that cannot be read any more is the user's to mend."""
    try:
        data = read_bytes(path)
        return decode_photo(change(data) if change else data, size).numpy()
    except (OSError, KeyError, photo_input.InvalidPhoto) as error:
        raise UserError(f"cannot read {path} ({error}); if it was there before, run `make data` again") from None
