"""Pictures of the figures; each function draws one into a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from sklearn import metrics

from training.measures import Array, reliability

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw_all(
    folder: Path,
    figures: dict[str, Any],
    history: list[dict[str, float]],
    truth: Array,
    probabilities: Array,
    photos: torch.Tensor,
) -> None:
    """Draw every picture of the report."""
    labels = figures["labels"]
    curves(folder / "curves.png", history)
    confusion(folder / "confusion.png", figures["test"]["confusion"], labels)
    roc(folder / "roc.png", truth, probabilities, labels)
    precision_recall(folder / "precision_recall.png", truth, probabilities, labels)
    calibration(folder / "reliability.png", truth, probabilities)
    coverage(folder / "coverage.png", figures["coverage"], figures["unsure_below"])
    mistakes(folder / "mistakes.png", truth, probabilities, photos, labels)
    if "scorecard" in figures:
        corruptions(folder / "scorecard.png", figures["scorecard"], figures["test"]["accuracy"])


def save(path: Path) -> None:
    plt.tight_layout()
    plt.savefig(path, dpi=110)
    plt.close()


def curves(path: Path, history: list[dict[str, float]]) -> None:
    minutes = [epoch["seconds"] / 60 for epoch in history]
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    left.plot(minutes, [epoch["train_loss"] for epoch in history], label="training (augmented, smoothed)")
    left.plot(minutes, [epoch["val_loss"] for epoch in history], label="validation")
    left.set(xlabel="minutes", ylabel="loss")
    left.legend()
    right.plot(minutes, [epoch["val_accuracy"] for epoch in history])
    right.set(xlabel="minutes", ylabel="validation accuracy")
    right.grid(alpha=0.3)
    save(path)


def confusion(path: Path, matrix: list[list[int]], labels: Sequence[str]) -> None:
    plt.figure(figsize=(1.2 * len(labels) + 2.4, 1.0 * len(labels) + 2))
    plt.imshow(matrix, cmap="Blues")
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            colour = "white" if count > np.max(matrix) / 2 else "black"
            plt.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
    plt.xticks(range(len(labels)), labels)
    plt.yticks(range(len(labels)), labels)
    plt.xlabel("answered")
    plt.ylabel("true")
    save(path)


def one_against_rest(truth: Array, probabilities: Array, labels: Sequence[str]) -> list[tuple[str, Array, Array]]:
    """Return name, truth and scores of each label; one of two labels says all."""
    shown = range(1, 2) if len(labels) == 2 else range(len(labels))
    return [(labels[index], truth == index, probabilities[:, index]) for index in shown]


def roc(path: Path, truth: Array, probabilities: Array, labels: Sequence[str]) -> None:
    plt.figure(figsize=(4.6, 4.2))
    for name, positive, scores in one_against_rest(truth, probabilities, labels):
        false_rate, true_rate, _ = metrics.roc_curve(positive, scores)
        plt.plot(false_rate, true_rate, label=f"{name}: area {metrics.auc(false_rate, true_rate):.4f}")
    plt.xlabel("wrongly called so")
    plt.ylabel("rightly called so")
    plt.legend(loc="lower right")
    save(path)


def precision_recall(path: Path, truth: Array, probabilities: Array, labels: Sequence[str]) -> None:
    plt.figure(figsize=(4.6, 4.2))
    for name, positive, scores in one_against_rest(truth, probabilities, labels):
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        plt.plot(recall, precision, label=name)
    plt.xlabel("recall")
    plt.ylabel("precision")
    plt.legend(loc="lower left")
    save(path)


def calibration(path: Path, truth: Array, probabilities: Array) -> None:
    rows = reliability(truth, probabilities)
    plt.figure(figsize=(4.6, 4.2))
    plt.plot([0, 1], [0, 1], color="grey", linewidth=1)
    plt.scatter(
        [row["confidence"] for row in rows], [row["accuracy"] for row in rows], s=[20 + 400 * row["share"] for row in rows]
    )
    plt.xlabel("confidence")
    plt.ylabel("accuracy (area: share of the photos)")
    plt.xlim(1 / probabilities.shape[1] - 0.05, 1.02)
    plt.ylim(0.3, 1.02)
    save(path)


def coverage(path: Path, rows: list[dict[str, float]], chosen: float) -> None:
    plt.figure(figsize=(4.6, 4.2))
    plt.plot([row["coverage"] for row in rows], [row["accuracy"] for row in rows])
    at = min(rows, key=lambda row: abs(row["threshold"] - chosen))
    plt.scatter([at["coverage"]], [at["accuracy"]], color="black", label=f"unsure below {chosen:.2f}")
    plt.xlabel("share of photos answered")
    plt.ylabel("accuracy of those")
    plt.legend(loc="lower left")
    save(path)


def mistakes(path: Path, truth: Array, probabilities: Array, photos: torch.Tensor, labels: Sequence[str]) -> None:
    """Show the most confident wrong answers."""
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(answers != truth)
    wrong = wrong[np.argsort(-confidence[wrong])][:24]
    _, axes = plt.subplots(4, 6, figsize=(10, 7.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, wrong, strict=False):
        axis.imshow(photos[int(index)].permute(1, 2, 0).numpy())
        axis.set_title(f"{labels[truth[index]]}, taken for\n{labels[answers[index]]} {confidence[index]:.3f}", fontsize=8)
    save(path)


def corruptions(path: Path, card: dict[str, Any], clean: float) -> None:
    names = ["as they are", *card["accuracy"]]
    values = [clean, *card["accuracy"].values()]
    plt.figure(figsize=(7, 4))
    plt.barh(names[::-1], values[::-1])
    for row, value in enumerate(values[::-1]):
        plt.text(value, row, f" {value:.1%}", va="center", fontsize=8)
    plt.xlim(min(values) - 0.05, 1.02)
    plt.xlabel("accuracy")
    save(path)
