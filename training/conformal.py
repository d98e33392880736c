"""From which confidence on an answer is sure: so that at most a promised share of the sure answers is wrong."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import beta, binom

from training.figures import Promise
from training.measures import Array

STEP = 0.05  # of the answers, between the thresholds that are tried: a finer grid ends at a single early mistake


@dataclass(frozen=True)
class Wanted:
    """At most this share of the sure answers is wrong, with this confidence."""

    wrong: float
    confidence: float


def choose_threshold(confidence: Array, wrong: Array, wanted: Wanted) -> tuple[float, Promise]:
    """Return the confidence below which answers are `unsure`, and what that promises of photos like these.

    Fixed-sequence testing ("Learn then test", Angelopoulos et al. 2021): thresholds are tried from the most confident answers
    to all of them. One is accepted if so few mistakes above it would be improbable, were more than the wanted share wrong.
    The first that is not ends the search, because the share of wrong answers need not fall as the threshold rises.
    Conformal risk control bounds an average over calibrations, and of `wrong and sure` among all photos: that is weaker.

    What is tried is a sequence of counts that does not depend on the answers. Given the next lower confidence, the mistakes
    among the most confident of exchangeable photos are binomial.
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, mistakes = confidence[order], np.r_[0, np.cumsum(wrong[order])]
    accepted = 0
    for count in sequence(len(order), wanted):
        sure = with_ties(confidence, count)
        if p_value(int(mistakes[sure]), sure, wanted.wrong) > 1 - wanted.confidence:
            break
        accepted = sure
    sure = accepted or with_ties(confidence, least_bound(mistakes, wanted))
    promise = Promise(
        wrong_when_sure=wanted.wrong, confidence=wanted.confidence, kept=accepted > 0, sure=sure, wrong=int(mistakes[sure])
    )
    return just_above(confidence[sure]) if sure < len(confidence) else 0.0, promise


def sequence(count: int, wanted: Wanted) -> list[int]:
    """Return how many of the most confident answers are tested, in turn; none where even all of them right would be too few.

    One mistake among the first is no reason to stop, where half the photos are enough to say so.
    """
    start = fewest(1, wanted) if 2 * fewest(1, wanted) <= count else fewest(0, wanted)
    return [*range(start, count, max(1, round(STEP * count))), count] if start <= count else []


@lru_cache
def fewest(mistakes: int, wanted: Wanted) -> int:
    """Return how many answers it takes to accept them with this many mistakes."""
    count = mistakes + 1
    while p_value(mistakes, count, wanted.wrong) > 1 - wanted.confidence:
        count += 1
    return count


def p_value(mistakes: int, count: int, share: float) -> float:
    """Return how probable so few mistakes are, or fewer, if this share of all answers is wrong (exact binomial test)."""
    return float(binom.cdf(mistakes, count, share))


def least_bound(mistakes: Array, wanted: Wanted) -> int:
    """Return the count of most confident answers that could be promised most of: Clopper and Pearson's upper bound."""
    count = np.arange(1, len(mistakes))
    bounds = beta.ppf(wanted.confidence, mistakes[1:] + 1, count - mistakes[1:])
    return int(count[np.nanargmin(np.where(count > mistakes[1:], bounds, 1.0))])


def with_ties(confidence: Array, count: int) -> int:
    """Return how many answers are as confident as the last of the `count` most confident."""
    return int(np.searchsorted(-confidence, -confidence[count - 1], side="right"))


def just_above(confidence: float) -> float:
    """Return the least confidence above this one, in the precision that the model answers in."""
    return float(np.nextafter(np.float32(confidence), np.float32(2)))
