"""Figures from probabilities: pure functions on arrays."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn import metrics

from training.figures import CoveragePoint, PhotoSet, Share, Sure

Array = np.ndarray[Any, Any]
ROUNDING = 1e-9  # probabilities of equal labels may lie this much below their share


def interval(right: int, count: int, z: float = 1.959964) -> list[float]:
    """Return Wilson's 95 % interval of a share."""
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def accuracy(truth: Array, probabilities: Array) -> Share:
    """Return the share of right answers, with its interval and count."""
    right = int((probabilities.argmax(1) == truth).sum())
    return Share(accuracy=right / len(truth), interval=interval(right, len(truth)), photos=len(truth))


def calibration_error(truth: Array, probabilities: Array, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins, weighted by their photos."""
    return float(sum(abs(row["confidence"] - row["accuracy"]) * row["share"] for row in reliability(truth, probabilities, bins)))


def reliability(truth: Array, probabilities: Array, bins: int = 15) -> list[dict[str, float]]:
    """Return confidence, accuracy and share of the photos of each non-empty confidence bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[bin_of == index].mean()),
            "accuracy": float(right[bin_of == index].mean()),
            "share": float((bin_of == index).mean()),
        }
        for index in range(bins)
        if (bin_of == index).any()
    ]


def everything(truth: Array, probabilities: Array, labels: Sequence[str]) -> PhotoSet:
    """Return all figures of one set of photos, whatever labels it has photos of."""
    answers, numbers = probabilities.argmax(1), list(range(len(labels)))
    f1 = metrics.f1_score(truth, answers, average=None, labels=numbers, zero_division=0.0)
    return PhotoSet(
        **asdict(accuracy(truth, probabilities)),
        balanced_accuracy=float(np.mean([(answers[truth == label] == label).mean() for label in np.unique(truth)])),
        f1=dict(zip(labels, f1.tolist(), strict=True)),
        roc_auc=roc_auc(truth, probabilities),
        log_loss=float(metrics.log_loss(truth, probabilities.astype(np.float64), labels=numbers)),
        calibration_error=calibration_error(truth, probabilities),
        confusion=metrics.confusion_matrix(truth, answers, labels=numbers).tolist(),
    )


def roc_auc(truth: Array, probabilities: Array) -> float | None:
    """Return the mean over labels of each against the rest; one of two labels says all, and one with no photos nothing."""
    labels = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [metrics.roc_auc_score(truth == label, probabilities[:, label]) for label in labels if len(set(truth == label)) == 2]
    return float(np.mean(areas)) if areas else None


def coverage(truth: Array, probabilities: Array) -> list[CoveragePoint]:
    """Return, for each confidence below which an answer would be `unsure`, what share is answered and how well."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    lowest = 100 // probabilities.shape[1]  # in percent; no answer is less confident, so there is always a point
    points = []
    for threshold in np.r_[np.arange(lowest, 99) / 100, np.arange(990, 1000) / 1000]:
        sure = confidence >= threshold - ROUNDING
        if sure.any():
            share, accuracy = float(sure.mean()), float(right[sure].mean())
            points.append(CoveragePoint(threshold=float(threshold), coverage=share, accuracy=accuracy))
    return points


def sure_answers(truth: Array, probabilities: Array, sure: Array) -> Sure | None:
    """Return how many answers are sure, and how right those are."""
    if not sure.any():
        return None
    return Sure(**asdict(accuracy(truth[sure], probabilities[sure])), coverage=float(sure.mean()))


def slices(truth: Array, probabilities: Array, statistics: dict[str, Array]) -> dict[str, Share]:
    """Return the accuracy on the dark, bright, small, wide and tall photos among these."""
    brightness = statistics["brightness"]
    aspect = statistics["width"] / statistics["height"]
    chosen = {
        "dark": brightness < np.quantile(brightness, 0.1),
        "bright": brightness > np.quantile(brightness, 0.9),
        "low contrast": statistics["contrast"] < np.quantile(statistics["contrast"], 0.1),
        "small": np.minimum(statistics["width"], statistics["height"]) < 128,
        "wide": aspect > 1.2,
        "tall": aspect < 1 / 1.2,
    }
    return {name: accuracy(truth[mask], probabilities[mask]) for name, mask in chosen.items() if mask.any()}
