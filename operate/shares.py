"""Shares with their intervals, and percentiles: the arithmetic of the figures. Nothing here depends on the order of the values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class Share:
    """How many of some photos; share and Wilson's 95 % interval are unknown where there is no photo."""

    share: float | None
    interval: tuple[float, float] | None
    count: int
    photos: int


def share_of(count: int, photos: int) -> Share:
    """Return the share of `count` photos among `photos`."""
    return Share(count / photos, interval(count, photos), count, photos) if photos else Share(None, None, 0, 0)


def interval(count: int, photos: int, z: float = Z) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    share = count / photos
    centre = (share + z * z / (2 * photos)) / (1 + z * z / photos)
    half = z / (1 + z * z / photos) * math.sqrt(share * (1 - share) / photos + z * z / (4 * photos * photos))
    return max(0.0, centre - half), min(1.0, centre + half)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of the values that at least this percentage of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
