"""Photos that are the same photo: saved again, resized, or slightly cropped."""

import numpy as np
from PIL import Image

BITS = 8  # perceptual hashes of one photo, re-encoded or resized, differ in fewer than this many of 64
DISTANCE = 0.12  # and their thumbnails, brought to the same mean and contrast, by less than this on average
THUMBNAIL = 16
AT_ONCE = 2_000_000  # pairs that are compared in one piece, so that memory does not grow with them


def cosines(size: int = 32, count: int = 9) -> np.ndarray:
    """The first rows of the discrete cosine transform."""
    places = (2 * np.arange(size) + 1) * np.pi / (2 * size)
    return np.cos(np.arange(count)[:, None] * places)


COSINES = cosines()


def perceptual_hash(photo: Image.Image) -> int:
    """Return 64 bits that tell the photo's coarse structure (pHash)."""
    grey = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    waves = (COSINES @ grey @ COSINES.T)[:8, 1:9]
    return int.from_bytes(np.packbits(waves > np.median(waves)).tobytes(), "big")


def thumbnail(photo: Image.Image) -> np.ndarray:
    """Return 16x16 grey values, as bytes."""
    return np.asarray(photo.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def similar_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return index pairs of near-duplicates among N hashes (uint64) and thumbnails [N, 16, 16]."""
    levels = thumbnails.reshape(-1, THUMBNAIL * THUMBNAIL).astype(np.float32)
    levels -= levels.mean(1, keepdims=True)
    levels /= levels.std(1, keepdims=True) + 4  # flat ones stay flat
    pairs = []
    step = max(1, AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        block = hashes[start : start + step, None] ^ hashes[None, start:]
        rows, columns = np.nonzero(np.bitwise_count(block) < BITS)
        upper = columns > rows
        first, second = rows[upper] + start, columns[upper] + start
        near = np.abs(levels[first] - levels[second]).mean(1) < DISTANCE
        pairs += list(zip(first[near].tolist(), second[near].tolist(), strict=True))
    return pairs


def groups(count: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Return the connected groups of two or more, each sorted."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in pairs:
        parent[root(second)] = root(first)
    members: dict[int, list[int]] = {}
    for index in sorted({index for pair in pairs for index in pair}):
        members.setdefault(root(index), []).append(index)
    return list(members.values())
