"""Evidence that holds at every moment: one may look after each request and stop when one likes.

A gambler bets against "the mean is at most m", with a fixed share of the capital on each value. If the hypothesis is true,
the capital is a non-negative supermartingale that starts at 1, and so is the average of several gamblers' capitals. Ville's
inequality: such a capital ever reaches 1/alpha with probability alpha at most. The means that have not been refuted in this way
are a confidence sequence.

J. Ville, Etude critique de la notion de collectif, 1939. I. Waudby-Smith and A. Ramdas, Estimating means of bounded random
variables by betting, Journal of the Royal Statistical Society B 86 (2024), arXiv:2010.09686.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALPHA = 0.05
# The stakes of fifty gamblers: small ones tell small differences, and with 1 a single surprise would ruin the gambler
STAKES = np.geomspace(0.001, 0.99, 50)
PRECISION = 1e-6
Counts = Mapping[int, int]  # how often each value came; the keys are all values that may come


@dataclass(frozen=True)
class Range:
    """A mean, and the lowest and highest value that it may have."""

    mean: float
    low: float
    high: float


def evidence_above(mean: float, counts: Counts) -> float:
    """Return the logarithm of the capital that bets on a true mean above `mean`; log(1/alpha) refutes "at most `mean`"."""
    lowest = min(counts)
    if mean <= lowest:
        return math.inf if any(count for value, count in counts.items() if value > lowest) else 0.0
    return float(log_capital(mean, counts))


def log_capital(mean: float, counts: Mapping[int, npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return the logarithm of the gamblers' average capital; for arrays of counts, that of each moment."""
    lowest = min(counts)
    bets = {value: np.log1p(STAKES * (value - mean) / (mean - lowest)) for value in counts}
    capitals = sum(np.multiply.outer(count, bets[value]) for value, count in counts.items())
    return np.logaddexp.reduce(capitals, axis=-1) - np.log(len(STAKES))


def evidence_below(mean: float, counts: Counts) -> float:
    """Return the logarithm of the capital that bets on a true mean below `mean`."""
    return evidence_above(-mean, {-value: count for value, count in counts.items()})


def refutes(evidence: float, alpha: float = ALPHA) -> bool:
    return evidence >= math.log(1 / alpha)


def confidence_sequence(counts: Counts, alpha: float = ALPHA) -> Range:
    """Return the observed mean and the range that holds the true one at all moments together, with probability 1 - alpha."""
    total = sum(counts.values())
    mean = sum(value * count for value, count in counts.items()) / total if total else math.nan
    mirrored = {-value: count for value, count in counts.items()}
    return Range(mean, lower_bound(counts, alpha / 2), -lower_bound(mirrored, alpha / 2))


def lower_bound(counts: Counts, alpha: float) -> float:
    """Return the largest mean that is refuted from above, within PRECISION: the capital falls as the mean grows."""
    low, high = float(min(counts)), float(max(counts))
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if refutes(evidence_above(middle, counts), alpha) else (low, middle)
    return low
