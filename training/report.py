"""reports/: the figures as a person reads them, with their pictures."""

from pathlib import Path
from typing import Any

import torch

from training.files import write_atomically
from training.measures import Array
from training.plots import draw_all


def write_report(
    figures: dict[str, Any],
    history: list[dict[str, float]],
    truth: Array,
    probabilities: Array,
    photos: torch.Tensor,
    folder: Path,
) -> None:
    """Draw the pictures and write report.md around them."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_all(folder, figures, history, truth, probabilities, photos)
    write_atomically(folder / "report.md", render(figures))


def render(figures: dict[str, Any]) -> str:
    """Return the report's text."""
    sections = [summary(figures), table("By label (F1)", figures["test"]["f1"]), slice_table(figures["slices"])]
    if "scorecard" in figures:
        card = figures["scorecard"]
        title = f"After a corruption ({card['photos']:,} test photos; mean {card['mean']:.2%})"
        sections.append(table(title, card["accuracy"]) + "\n![scorecard](scorecard.png)\n")
    if "baselines" in figures:
        sections.append(table("The simplest things, for scale", figures["baselines"]))
    pictures = ("curves", "confusion", "roc", "precision_recall", "reliability", "coverage", "mistakes")
    sections.append("## Pictures\n\n" + "\n".join(f"![{name}]({name}.png)\n" for name in pictures))
    return "\n".join(sections)


def summary(figures: dict[str, Any]) -> str:
    test, unlike, minutes = figures["test"], figures["unlike"], figures["training_minutes"]
    sure = min(figures["coverage"], key=lambda row: abs(row["threshold"] - figures["unsure_below"]))
    lines = [
        "# How good the model is",
        "",
        f"{figures['parameters']:,} parameters, {figures['image_size']} px, trained in {minutes:.0f} minutes on "
        f"{figures['photos']['train']:,} photos; measured on {test['photos']:,} that it never saw, one forward pass each.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| test accuracy (95 % interval) | {test['accuracy']:.2%} ({test['interval'][0]:.2%} to {test['interval'][1]:.2%}) |",
        f"| balanced accuracy | {test['balanced_accuracy']:.2%} |",
        f"| ROC AUC | {test['roc_auc']:.4f} |",
        f"| log loss | {test['log_loss']:.4f} |",
        f"| calibration error, before and after scaling by {figures['temperature']:.2f} | "
        f"{figures['calibration_error_before']:.4f}, {test['calibration_error']:.4f} |",
        f"| answers that are sure (confidence {figures['unsure_below']:.2f} or more) | "
        f"{sure['coverage']:.2%} of all, right {sure['accuracy']:.2%} |",
        f"| refused as unlike: test photos of the labels | {unlike['pets_refused']:.2%} |",
    ]
    if "others_refused" in unlike:
        lines.append(f"| refused as unlike: {unlike['others']} photos of other things | {unlike['others_refused']:.2%} |")
    if "camera_photos" in figures:
        camera = figures["camera_photos"]
        lines.append(f"| accuracy on {camera['photos']:,} camera-size photos | {camera['accuracy']:.2%} |")
    return "\n".join(lines) + "\n"


def table(title: str, rows: dict[str, float]) -> str:
    body = "\n".join(f"| {name} | {value:.2%} |" for name, value in rows.items())
    return f"## {title}\n\n| | |\n|---|---|\n{body}\n"


def slice_table(slices: dict[str, dict[str, Any]]) -> str:
    rows = "\n".join(f"| {name} | {one['photos']:,} | {one['accuracy']:.2%} |" for name, one in slices.items())
    return f"## By kind of photo\n\n| kind | photos | accuracy |\n|---|---|---|\n{rows}\n"
