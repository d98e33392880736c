"""The promise of the sequential test, worked out exactly where it can be, and simulated where not."""

import itertools
import math

import numpy as np
import pytest

from operate.anytime import STAKES, confidence_sequence, evidence_above, evidence_below, refutes


def capital_of(values: list[int], mean: float, lowest: int) -> float:
    """The gamblers' average capital, bet by bet."""
    capitals = []
    for stake in STAKES:
        capital = 1.0
        for value in values:
            capital *= 1 + stake * (value - mean) / (mean - lowest)
        capitals.append(capital)
    return sum(capitals) / len(capitals)


@pytest.mark.parametrize(("values", "mean"), [([1, 0, 0, 1, 1], 0.3), ([-1, 1, 1, 0, 1, -1, 1], 0.0), ([0, -1, 1, 1], -0.25)])
def test_the_evidence_is_what_gamblers_would_own_who_bet_value_by_value(values: list[int], mean: float) -> None:
    kinds = (0, 1) if min(values) == 0 else (-1, 0, 1)
    counts = {kind: values.count(kind) for kind in kinds}
    assert math.exp(evidence_above(mean, counts)) == pytest.approx(capital_of(values, mean, kinds[0]), rel=1e-9)
    turned = [-value for value in values]
    assert math.exp(evidence_below(mean, counts)) == pytest.approx(capital_of(turned, -mean, -kinds[-1]), rel=1e-9)


def test_a_value_that_is_neither_better_nor_worse_says_nothing() -> None:
    """Against "not worse", only pairs count of which one is right and the other wrong."""
    assert evidence_above(0, {-1: 3, 0: 0, 1: 9}) == pytest.approx(evidence_above(0, {-1: 3, 0: 10_000, 1: 9}))


@pytest.mark.parametrize(
    ("chances", "mean"),
    [
        ({0: 0.9, 1: 0.1}, 0.1),
        ({-1: 0.2, 0: 0.6, 1: 0.2}, 0.0),
        ({-1: 0.1, 0: 0.7, 1: 0.2}, 0.1),
        ({-1: 0.3, 0: 0.2, 1: 0.5}, 0.2),
    ],
)
def test_a_true_hypothesis_gains_nothing_on_average(chances: dict[int, float], mean: float) -> None:
    """The mean over all streams of six values is 1: the capital is a martingale, in both directions."""
    expected = {"above": 0.0, "below": 0.0}
    for stream in itertools.product(chances, repeat=6):
        probability = math.prod(chances[value] for value in stream)
        counts = {value: stream.count(value) for value in chances}
        expected["above"] += probability * math.exp(evidence_above(mean, counts))
        expected["below"] += probability * math.exp(evidence_below(mean, counts))
    assert expected == {"above": pytest.approx(1), "below": pytest.approx(1)}


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_false_alarms_keep_to_alpha_when_one_looks_after_each_of_600_pairs(alpha: float) -> None:
    """Exactly, by all paths of a fair coin: the probability that the evidence has ever been enough."""
    alive, alarmed = {0: 1.0}, 0.0  # by the number of pairs that speak against the candidate
    for pairs in range(1, 601):
        after: dict[int, float] = {}
        for against, probability in alive.items():
            for step in (0, 1):
                after[against + step] = after.get(against + step, 0) + probability / 2
        alive = {}
        for against, probability in after.items():
            if refutes(evidence_above(0, {-1: pairs - against, 0: 0, 1: against}), alpha):
                alarmed += probability
            else:
                alive[against] = probability
    assert alpha / 10 < alarmed <= alpha


def test_a_share_is_within_its_confidence_sequence_at_all_moments_together() -> None:
    random, missed, truth = np.random.default_rng(0), 0, 0.04
    for _ in range(200):
        ones = np.cumsum(random.random(2000) < truth)
        looks = [{0: moment + 1 - int(ones[moment]), 1: int(ones[moment])} for moment in range(0, 2000, 20)]
        missed += any(refutes(max(evidence_above(truth, look), evidence_below(truth, look)), 0.025) for look in looks)
    assert missed <= 10


def test_a_confidence_sequence_holds_what_is_not_refuted() -> None:
    counts = {0: 960, 1: 40}
    found = confidence_sequence(counts)
    assert found.mean == 0.04
    assert 0.01 < found.low < 0.04 < found.high < 0.07
    assert [refutes(evidence_above(found.low + step, counts), 0.025) for step in (-1e-5, 1e-5)] == [True, False]
    assert [refutes(evidence_below(found.high + step, counts), 0.025) for step in (-1e-5, 1e-5)] == [False, True]


def test_a_difference_of_shares_may_be_negative() -> None:
    found = confidence_sequence({-1: 90, 0: 900, 1: 10})
    assert found.mean == -0.08
    assert -0.13 < found.low < -0.08 < found.high < -0.03


def test_without_any_value_everything_is_possible() -> None:
    found = confidence_sequence({-1: 0, 0: 0, 1: 0})
    assert (math.isnan(found.mean), found.low, found.high) == (True, pytest.approx(-1, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_ever_more_values_of_one_kind_narrow_the_range() -> None:
    """No disagreement in n photos bounds its share by a few divided by n."""
    highest = [confidence_sequence({0: count, 1: 0}).high for count in (100, 1000, 10_000)]
    assert highest == sorted(highest, reverse=True)
    assert [4 < count * high < 9 for count, high in zip((100, 1000, 10_000), highest, strict=True)] == [True] * 3
    assert confidence_sequence({0: 10_000, 1: 0}).low == 0


def test_what_cannot_be_at_all_is_refuted_by_one_value() -> None:
    assert (evidence_above(0, {0: 5, 1: 1}), evidence_above(0, {0: 5, 1: 0})) == (math.inf, 0.0)
