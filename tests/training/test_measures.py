"""The figures are right on examples small enough to check by hand."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from training import measures
from training.calibrate import fit_distance, fit_linear, fit_temperature, rebuild_unlike, synthetic_others
from training.figures import CoveragePoint, PhotoSet, Share, Sure

TRUTH = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])


def test_accuracy_comes_with_wilsons_interval() -> None:
    assert measures.accuracy(TRUTH, PROBABILITIES) == Share(
        accuracy=0.75, interval=[pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4)], photos=4
    )


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy() -> None:
    assert measures.calibration_error(TRUTH, PROBABILITIES) == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4)
    assert measures.calibration_error(TRUTH, np.eye(2)[TRUTH]) == 0


def test_everything_is_measured() -> None:
    figures = measures.everything(TRUTH, PROBABILITIES, ["cat", "dog"])

    assert figures == PhotoSet(
        **vars(measures.accuracy(TRUTH, PROBABILITIES)),
        balanced_accuracy=0.75,
        f1={"cat": pytest.approx(2 / 3), "dog": pytest.approx(0.8)},
        roc_auc=1.0,
        log_loss=pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean()),
        calibration_error=pytest.approx(0.3),
        confusion=[[1, 1], [0, 2]],
    )


def test_three_labels_are_measured_too() -> None:
    truth, probabilities = np.array([0, 1, 2]), np.eye(3) * 0.7 + 0.1

    assert measures.everything(truth, probabilities, ["a", "b", "c"]).roc_auc == 1.0


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_figures_are_those_of_scikit_learn(labels: int) -> None:
    random = np.random.default_rng(labels)
    truth, probabilities = random.integers(labels, size=200), random.dirichlet(np.ones(labels), 200)

    figures = measures.everything(truth, probabilities, list("abcde"[:labels]))

    scores = probabilities[:, 1] if labels == 2 else probabilities
    assert figures.roc_auc == pytest.approx(metrics.roc_auc_score(truth, scores, multi_class="ovr"))
    assert figures.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, probabilities.argmax(1)))


def test_a_set_without_photos_of_a_label_is_measured_by_the_others() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]])

    figures = measures.everything(np.array([0, 0, 1]), probabilities, ["a", "b", "c"])

    assert (figures.accuracy, figures.balanced_accuracy, figures.roc_auc) == (pytest.approx(2 / 3), 0.75, 0.75)
    assert figures.f1 == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 0.0}
    assert measures.everything(np.array([0, 0]), probabilities[:2], ["a", "b", "c"]).roc_auc is None


def test_sure_answers_are_counted_among_all() -> None:
    sure = np.array([True, True, False, False])

    assert measures.sure_answers(TRUTH, PROBABILITIES, sure) == Sure(
        accuracy=0.5, interval=measures.interval(1, 2), photos=2, coverage=0.5
    )
    assert measures.sure_answers(TRUTH, PROBABILITIES, ~sure & sure) is None


def test_coverage_of_two_labels_begins_at_one_half() -> None:
    assert [row.threshold for row in measures.coverage(TRUTH, PROBABILITIES)] == [
        pytest.approx(percent / 100) for percent in range(50, 91)
    ]


@pytest.mark.parametrize("labels", [2, 3, 5, 7])
def test_a_model_that_knows_nothing_is_sure_from_its_lowest_confidence_on(labels: int) -> None:
    truth, probabilities = np.arange(labels), np.full((labels, labels), 1 / labels - 1e-12)

    assert measures.coverage(truth, probabilities)[0] == CoveragePoint(
        threshold=100 // labels / 100, coverage=1.0, accuracy=1 / labels
    )


def test_coverage_of_three_unconvincing_labels_begins_at_a_third() -> None:
    rows = measures.coverage(np.array([0, 1]), np.array([[0.40, 0.35, 0.25], [0.34, 0.33, 0.33]]))

    assert [(row.threshold, row.coverage, row.accuracy) for row in rows[:2] + rows[-1:]] == [
        (0.33, 1.0, 0.5), (0.34, 1.0, 0.5), (0.40, 0.5, 1.0),
    ]  # fmt: skip


def test_slices_pick_photos_by_what_they_are_like() -> None:
    statistics = {
        "brightness": np.array([0.1, 0.5, 0.5, 0.9]),
        "contrast": np.array([0.2, 0.3, 0.3, 0.3]),
        "width": np.array([400, 100, 300, 300]),
        "height": np.array([300, 100, 400, 300]),
    }
    result = measures.slices(TRUTH, PROBABILITIES, statistics)

    assert {name: row.photos for name, row in result.items()} == {
        "dark": 1, "bright": 1, "low contrast": 1, "small": 1, "wide": 1, "tall": 1,
    }  # fmt: skip
    assert result["small"].accuracy == 0.0


def test_temperature_recovers_the_scale_that_logits_were_given() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 2, generator=generator) * 2
    truth = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator).squeeze(1)

    assert fit_temperature(logits * 3, truth) == pytest.approx(3, rel=0.1)


def clouds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two labels' summaries, their numbers, and summaries of other things."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[4.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])
    truth = torch.arange(400) % 2
    pets = centres[truth] + torch.randn(400, 4, generator=generator)
    others = torch.tensor([0.0, 0.0, 8.0, 0.0]) + torch.randn(200, 4, generator=generator)
    return pets, truth, others


def test_both_unlike_scores_tell_other_things_from_pets() -> None:
    pets, truth, others = clouds()
    for score in (fit_linear(pets, others), fit_distance(pets, truth)):
        threshold = score(pets).quantile(0.97)

        assert (score(others) > threshold).float().mean() > 0.95


def test_an_unlike_score_survives_being_saved() -> None:
    pets, truth, others = clouds()
    for kind, score in (("linear", fit_linear(pets, others)), ("distance", fit_distance(pets, truth))):
        again = rebuild_unlike({"kind": kind, "numbers": dict(score.named_buffers())})

        assert torch.equal(again(pets), score(pets))


def test_pictures_of_nothing_differ_from_one_another() -> None:
    pictures = synthetic_others(32, 8)

    assert pictures.shape == (8, 3, 32, 32)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 8
