"""Figures from probabilities: pure functions on arrays."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

Array = np.ndarray[Any, Any]
ROUNDING = 1e-9  # probabilities of equal labels may lie this much below their share


def interval(right: int, count: int, z: float = 1.959964) -> list[float]:
    """Return Wilson's 95 % interval of a share."""
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def accuracy(truth: Array, probabilities: Array) -> dict[str, Any]:
    """Return the share of right answers, with its interval and count."""
    right = int((probabilities.argmax(1) == truth).sum())
    return {"accuracy": right / len(truth), "interval": interval(right, len(truth)), "photos": len(truth)}


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


def everything(truth: Array, probabilities: Array, labels: Sequence[str]) -> dict[str, Any]:
    """Return all figures of one set of photos."""
    answers, numbers = probabilities.argmax(1), list(range(len(labels)))
    scores = probabilities[:, 1] if len(labels) == 2 else probabilities
    return {
        **accuracy(truth, probabilities),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(truth, answers)),
        "f1": dict(zip(labels, metrics.f1_score(truth, answers, average=None, labels=numbers).tolist(), strict=True)),
        "roc_auc": float(metrics.roc_auc_score(truth, scores, multi_class="ovr", labels=numbers)),
        "log_loss": float(metrics.log_loss(truth, probabilities.astype(np.float64), labels=numbers)),
        "calibration_error": calibration_error(truth, probabilities),
        "confusion": metrics.confusion_matrix(truth, answers, labels=numbers).tolist(),
    }


def coverage(truth: Array, probabilities: Array) -> list[dict[str, float]]:
    """Return, for each confidence below which an answer would be `unsure`, what share is answered and how well."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    rows = []
    lowest = 100 // probabilities.shape[1]  # in percent; no answer is less confident, so there is always a row
    for threshold in np.arange(lowest, 100) / 100:
        sure = confidence >= threshold - ROUNDING
        if sure.any():
            rows.append({"threshold": float(threshold), "coverage": float(sure.mean()), "accuracy": float(right[sure].mean())})
    return rows


def choose_unsure(truth: Array, probabilities: Array, wanted: float) -> float:
    """Return the lowest confidence from which on answers are right at the wanted rate, or the best there is."""
    rows = coverage(truth, probabilities)
    good = [row for row in rows if row["accuracy"] >= wanted]
    chosen = good[0] if good else max(rows, key=lambda row: row["accuracy"])
    return chosen["threshold"]


def slices(truth: Array, probabilities: Array, statistics: dict[str, Array]) -> dict[str, dict[str, Any]]:
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
