"""What is promised of sure answers is kept."""

import numpy as np
import pytest
from scipy.stats import binomtest

from training.conformal import Wanted, choose_threshold, fewest, p_value, sequence
from training.figures import Promise
from training.measures import Array

WANTED = Wanted(wrong=0.005, confidence=0.95)
LOOSE = Wanted(wrong=0.05, confidence=0.95)


def photos(count: int, seed: int, *, flat: float = 0.0) -> tuple[Array, Array]:
    """Return confidences that are right, and which answers are wrong; `flat` of all, however confident, are wrong besides."""
    random = np.random.default_rng(seed)
    confidence = (1 / (1 + np.exp(-np.abs(random.normal(6, 3, count))))).astype(np.float32)
    return confidence, (random.random(count) > confidence) | (random.random(count) < flat)


@pytest.mark.parametrize(("mistakes", "count", "share"), [(0, 598, 0.005), (3, 40, 0.1), (7, 2000, 0.005), (5, 5, 0.2)])
def test_the_p_value_is_the_exact_binomial_tests(mistakes: int, count: int, share: float) -> None:
    assert p_value(mistakes, count, share) == pytest.approx(binomtest(mistakes, count, share, alternative="less").pvalue)


def test_598_right_answers_are_the_fewest_that_promise_half_a_percent() -> None:
    assert fewest(0, WANTED) == 598  # 0.995 ** 598 = 0.0499
    assert fewest(1, WANTED) == 947


def test_the_thresholds_tried_do_not_depend_on_the_answers() -> None:
    assert sequence(597, WANTED) == []
    assert sequence(700, WANTED) == [598, 633, 668, 700]
    assert sequence(1800, WANTED) == [*range(598, 1800, 90), 1800]
    assert sequence(2000, WANTED) == [*range(947, 2000, 100), 2000]


def test_every_answer_is_sure_where_all_are_right() -> None:
    confidence, _ = photos(1000, 0)

    threshold, promise = choose_threshold(confidence, np.zeros(1000, bool), WANTED)

    assert threshold == 0.0
    assert promise == Promise(wrong_when_sure=0.005, confidence=0.95, kept=True, sure=1000, wrong=0)


def test_the_answers_above_the_threshold_are_those_that_the_promise_counts() -> None:
    confidence, wrong = photos(3000, 1)

    threshold, promise = choose_threshold(confidence, wrong, WANTED)

    sure = confidence >= threshold
    assert promise == Promise(
        wrong_when_sure=0.005, confidence=0.95, kept=True, sure=int(sure.sum()), wrong=int(wrong[sure].sum())
    )
    assert 0.4 < sure.mean() < 1
    assert binomtest(promise.wrong, promise.sure, 0.005, alternative="less").pvalue <= 0.05


def test_a_threshold_beyond_one_that_fails_is_never_chosen() -> None:
    """All mistakes lie among the most confident: over all answers they would be few enough."""
    confidence = np.linspace(1, 0.5, 1000, dtype=np.float32)
    wrong = np.arange(1000) < 5

    _, promise = choose_threshold(confidence, wrong, LOOSE)

    assert p_value(5, 1000, 0.05) < 0.05
    assert not promise.kept


def test_few_photos_promise_nothing_and_get_the_threshold_that_most_could_be_promised_of() -> None:
    confidence = np.linspace(0.99, 0.5, 50, dtype=np.float32)
    wrong = np.arange(50) >= 40

    threshold, promise = choose_threshold(confidence, wrong, WANTED)

    assert promise == Promise(wrong_when_sure=0.005, confidence=0.95, kept=False, sure=40, wrong=0)
    assert (confidence >= threshold).tolist() == (np.arange(50) < 40).tolist()


def test_one_wrong_answer_promises_nothing() -> None:
    assert choose_threshold(np.array([0.9], np.float32), np.array([True]), WANTED) == (
        0.0, Promise(wrong_when_sure=0.005, confidence=0.95, kept=False, sure=1, wrong=1),
    )  # fmt: skip


def test_equally_confident_answers_are_sure_together() -> None:
    confidence = np.r_[np.ones(650), np.full(100, 0.6)].astype(np.float32)
    wrong = np.arange(750) >= 700

    threshold, promise = choose_threshold(confidence, wrong, WANTED)

    assert 0.6 < threshold < 0.600001
    assert (promise.kept, promise.sure, promise.wrong) == (True, 650, 0)


@pytest.mark.parametrize("flat", [0.0, 0.03, 0.06])
def test_the_promise_is_broken_in_no_more_cases_than_it_says(flat: float) -> None:
    """Measured on photos without end: 200,000 of the same kind."""
    everyone, mistaken = photos(200_000, 0, flat=flat)
    broken = kept = 0
    for seed in range(1, 401):
        threshold, promise = choose_threshold(*photos(400, seed, flat=flat), LOOSE)
        kept += promise.kept
        broken += promise.kept and mistaken[everyone >= threshold].mean() > LOOSE.wrong

    assert broken / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert (kept > 380) == (flat == 0.0)
    assert flat != 0.06 or broken == kept > 0  # no threshold could keep it: each that was promised was bad luck
