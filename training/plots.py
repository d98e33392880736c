"""Pictures of the figures. Each function draws one; they say in their titles what they show, and also read in grey."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from sklearn import metrics

from training.compare import Known
from training.figures import CoveragePoint, Figures, Share
from training.measures import Array, interval, reliability

Theme = dict[str, Any]

LIGHT: Theme = {"ink": "#1a1a1a", "paper": "#ffffff", "faint": "#9a9a9a", "colours": ["#12406e", "#d07a1f", "#7b7b7b"]}
DARK: Theme = {"ink": "#e8e8e8", "paper": "#16181c", "faint": "#7d7d7d", "colours": ["#8cc4ff", "#e08a2e", "#b5b5b5"]}
LINES = ["-", "--", ":", "-."]  # colours alone do not survive a grey print
MARKERS = ["o", "s", "^", "D"]
STARTS = (0.99, 0.98, 0.95, 0.9, 0.8, 0.5, 0.0)  # where a zoomed axis of shares may begin
FEW = 10  # photos in a bin, below which its point is drawn hollow

Draw = Callable[[], Figure]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the figures were measured from: the training's epochs, the test photos' answers, and the unlike scores."""

    history: list[dict[str, float]]
    truth: Array
    probabilities: Array
    photos: torch.Tensor  # uint8 [N, 3, S, S], those of the test split
    unlike_pets: Array
    unlike_others: Array | None = None


def pictures(figures: Figures, evidence: Evidence, before: Known | None = None) -> dict[str, Draw]:
    """Return every picture that these figures allow, by name, not yet drawn."""
    truth, probabilities, labels = evidence.truth, evidence.probabilities, figures.labels
    pairs = one_against_rest(truth, probabilities, labels)
    found: dict[str, Draw] = {
        "curves": partial(curves, evidence.history, figures.photos["val"]),
        "confusion": partial(confusion, figures.test.confusion, labels),
        "roc": partial(roc, pairs),
        "precision_recall": partial(precision_recall, pairs, figures.test.accuracy),
        "reliability": partial(calibration, truth, probabilities, figures.test.calibration_error),
        "coverage": partial(coverage, figures),
        "unlike": partial(unlike, figures, evidence.unlike_pets, evidence.unlike_others),
        "slices": partial(slices, figures),
    }
    if figures.scorecard:
        found["scorecard"] = partial(scorecard, figures, before)
    return found


def as_png(draw: Draw, theme: Theme) -> bytes:
    """Draw a picture on light or dark paper."""
    with mpl.rc_context(style(theme)):
        buffer = io.BytesIO()
        draw().savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def style(theme: Theme) -> Any:
    ink, paper, faint = theme["ink"], theme["paper"], theme["faint"]
    return {
        "figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper, "text.color": ink, "axes.labelcolor": ink,
        "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": faint, "axes.prop_cycle": cycler(color=theme["colours"]),
        "grid.color": faint, "grid.alpha": 0.35, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False,
        "axes.spines.right": False, "font.size": 9.5, "axes.titlesize": 10.5, "axes.titlelocation": "left",
        "legend.frameon": False, "lines.linewidth": 1.6, "hatch.linewidth": 0.6,
    }  # fmt: skip


def ink() -> str:
    return str(mpl.rcParams["text.color"])


def colour(number: int) -> str:
    found = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(found[number % len(found)])


def canvas(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def percent(axis: object, decimals: int | None = None) -> None:
    axis.set_major_formatter(PercentFormatter(1, decimals))  # type: ignore[attr-defined]


def log_percent(axis: object) -> None:
    """Label a logarithmic axis of shares: 0.1 %, 1 %, 10 %."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g}%"))  # type: ignore[attr-defined]
    axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]


def start_of(accuracy: float) -> float:
    """Return where an axis begins that shows an accuracy and its misses: the full square says nothing at 99 %."""
    return next(start for start in STARTS if start <= max(0.0, 1 - 4 * (1 - accuracy)))


def whiskers(share: Share) -> list[list[float]]:
    """Return the interval as matplotlib's error bars: how far down, how far up."""
    low, high = share.interval
    return [[max(0.0, share.accuracy - low)], [max(0.0, high - share.accuracy)]]


def share_of(accuracy: float, photos: int) -> Share:
    return Share(accuracy=accuracy, interval=interval(round(accuracy * photos), photos), photos=photos)


def curves(history: list[dict[str, float]], photos: int) -> Figure:
    """Draw the losses, both of the averaged weights on photos as they are where that was recorded, and the accuracy."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    minutes = [epoch["seconds"] / 60 for epoch in history]
    left.plot(minutes, [epoch["val_loss"] for epoch in history], MARKERS[0] + "-", markersize=3, label="validation photos")
    comparable = [epoch for epoch in history if "train_loss_plain" in epoch]
    if comparable:
        plain = [epoch["train_loss_plain"] for epoch in comparable]
        left.plot(
            [epoch["seconds"] / 60 for epoch in comparable], plain, "s--", markersize=3, label="training photos, not augmented"
        )
    else:
        augmented = [epoch["train_loss"] for epoch in history]
        left.plot(minutes, augmented, ":", label="training photos, augmented and smoothed:\nhigher by construction")
    left.set(
        xlabel="training time (minutes)",
        ylabel="log loss (nats, log scale)",
        yscale="log",
        title="Loss of the averaged weights\n(without augmentation, unless the legend says so)",
    )
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.1e}"[0] in "25" else ""))
    left.legend()
    shares = [share_of(epoch["val_accuracy"], photos) for epoch in history]
    right.plot(minutes, [share.accuracy for share in shares], MARKERS[0] + "-", markersize=3)
    lows, highs = [share.interval[0] for share in shares], [share.interval[1] for share in shares]
    right.fill_between(minutes, lows, highs, color=colour(0), alpha=0.2, linewidth=0)
    title = f"Validation accuracy, {shares[-1].accuracy:.2%} at the end\n(band: 95 % interval, n = {photos:,})"
    right.set(xlabel="training time (minutes)", ylabel="accuracy", title=title, ylim=(min(0.95, min(lows) - 0.01), 1.002))
    percent(right.yaxis)
    return figure


def confusion(matrix: list[list[int]], labels: Sequence[str]) -> Figure:
    """Draw how many photos of each label got each answer."""
    total, right = sum(map(sum, matrix)), sum(row[index] for index, row in enumerate(matrix))
    side = max(4.2, 0.75 * len(labels) + 2)
    figure, axes = canvas(side + 0.8, side * 0.8)
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            share = shares[row][column]
            shown = f"{count:,}" if len(labels) > 8 else f"{count:,}\n{share:.1%}"
            axes.text(column, row, shown, ha="center", va="center", color="white" if share > 0.5 else "black")
    many = len(labels) > 4
    axes.set_xticks(range(len(labels)), labels, rotation=40 if many else 0, ha="right" if many else "center")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answer", ylabel="true label", title=f"{total - right:,} of {total:,} test photos are answered wrong")
    axes.grid(visible=False)
    return figure


def one_against_rest(truth: Array, probabilities: Array, labels: Sequence[str]) -> list[tuple[str, Array, Array]]:
    """Return name, truth and scores of each label that there are photos of; one of two labels says all."""
    shown = range(1, 2) if len(labels) == 2 else range(len(labels))
    found = [(labels[index], truth == index, probabilities[:, index]) for index in shown]
    return [(name, positive, scores) for name, positive, scores in found if positive.any() and not positive.all()]


def roc(pairs: list[tuple[str, Array, Array]]) -> Figure:
    """Draw ROC with both errors on log scales, so that the corner where a good model lives is the picture."""
    figure, axes = canvas()
    least = 0.5
    for number, (name, positive, scores) in enumerate(pairs):
        false_rate, true_rate, _ = metrics.roc_curve(positive, scores)
        smallest = 0.5 / max(positive.sum(), (~positive).sum())
        least = min(least, smallest)
        label = f"{name} against the rest: area under ROC {metrics.auc(false_rate, true_rate):.4f}"
        axes.plot(
            np.maximum(false_rate, smallest),
            np.maximum(1 - true_rate, smallest),
            LINES[number % 4],
            drawstyle="steps-post",
            label=label,
        )
        if len(pairs) == 1:
            mark_answer(axes, name, positive, scores)
    axes.set(
        xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1), xlabel="others called so: false positive rate (log scale)",
        ylabel="missed: 1 - true positive rate (log scale)", title="ROC on log scales: lower left is better",
    )  # fmt: skip
    log_percent(axes.xaxis)
    log_percent(axes.yaxis)
    axes.legend(loc="upper right", fontsize=8 if len(pairs) < 8 else 6)
    return figure


def mark_answer(axes: Axes, name: str, positive: Array, scores: Array) -> None:
    """Mark what the answer itself does: the likelier of the two labels."""
    called = scores > 0.5
    false_share = share_of(float(called[~positive].mean()), int((~positive).sum()))
    miss_share = share_of(float((~called)[positive].mean()), int(positive.sum()))
    axes.errorbar(
        max(false_share.accuracy, 1e-9), max(miss_share.accuracy, 1e-9), yerr=whiskers(miss_share), xerr=whiskers(false_share),
        fmt="o", color=ink(), capsize=3, label=f"the answer `{name}` (95 % intervals)",
    )  # fmt: skip


def precision_recall(pairs: list[tuple[str, Array, Array]], accuracy: float) -> Figure:
    """Draw precision over recall, zoomed to the corner."""
    figure, axes = canvas()
    start = start_of(accuracy)
    for number, (name, positive, scores) in enumerate(pairs):
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        area = metrics.average_precision_score(positive, scores)
        axes.plot(recall, precision, LINES[number % 4], drawstyle="steps-post", label=f"{name}: average precision {area:.4f}")
    room = (1 - start) * 0.02
    zoomed = f", axes from {start:.0%}" if start else ""
    axes.set(
        xlim=(start, 1 + room), ylim=(start, 1 + room), xlabel="recall: share of the label's photos that are found",
        ylabel="precision: share of the answers that are right", title=f"Precision and recall{zoomed}",
    )  # fmt: skip
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.legend(loc="lower left", fontsize=8 if len(pairs) < 8 else 6)
    return figure


def calibration(truth: Array, probabilities: Array, error: float) -> Figure:
    """Draw accuracy over confidence, and how many photos have which confidence."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    lowest = 1 / probabilities.shape[1]
    above.plot([lowest, 1], [lowest, 1], color=ink(), linewidth=1, linestyle=":", label="confidence is accuracy")
    total = len(truth)
    for row in reliability(truth, probabilities):
        count = round(row["share"] * total)
        one = share_of(row["accuracy"], count)
        above.errorbar(
            row["confidence"], one.accuracy, yerr=whiskers(one), fmt="o", color=colour(0), capsize=3,
            markerfacecolor=colour(0) if count >= FEW else "none",
        )  # fmt: skip
    above.plot([], [], "o", color=colour(0), label="bin of test photos, 95 % interval")
    above.plot([], [], "o", color=colour(0), markerfacecolor="none", label=f"fewer than {FEW} photos")
    above.set(ylabel="accuracy", ylim=(0, 1.03), title=f"Calibration error {error:.4f} on {total:,} test photos, 15 bins")
    above.legend(loc="lower right")
    percent(above.yaxis)
    bins = np.linspace(0, 1, 16)
    below.hist(probabilities.max(1), bins, color=colour(2), edgecolor=ink(), linewidth=0.6)
    below.set(yscale="log", xlabel="confidence", ylabel="photos\n(log scale)", xlim=(max(0.0, lowest - 0.05), 1.02))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    percent(below.xaxis)
    return figure


def coverage(figures: Figures) -> Figure:
    """Draw how many of the sure answers are wrong, by how many answers are sure, with the promise."""
    figure, axes = canvas()
    draw_risk(axes, figures.coverage, figures.test.photos)
    chosen = chosen_point(figures)
    chosen_share = share_of(1 - chosen.accuracy, round(chosen.coverage * figures.test.photos))
    axes.errorbar(
        chosen.coverage, chosen_share.accuracy, yerr=whiskers(chosen_share), fmt="o", color=ink(), capsize=3,
        label=f"unsure below {figures.unsure_below:.2f}: {chosen_share.accuracy:.2%} wrong, {chosen.coverage:.1%} answered",
    )  # fmt: skip
    if figures.promise:
        promised = figures.promise.wrong_when_sure
        kept = "promised" if figures.promise.kept else "wanted, not promised"
        axes.axhline(promised, color=colour(1), linestyle="--", label=f"at most {promised:.2%} wrong {kept}")
    axes.set(
        xlabel="coverage: share of the test photos whose confidence reaches the threshold", ylabel="risk: share of those answers that is wrong",
        title=f"Risk over coverage on {figures.test.photos:,} test photos (band: 95 % interval)",
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    percent(axes.xaxis)
    percent(axes.yaxis, 1)
    axes.legend(loc="upper left", fontsize=8)
    return figure


def draw_risk(axes: Axes, points: list[CoveragePoint], photos: int) -> None:
    shares = [share_of(1 - point.accuracy, max(1, round(point.coverage * photos))) for point in points]
    covered = [point.coverage for point in points]
    axes.plot(covered, [share.accuracy for share in shares], color=colour(0))
    lows, highs = [share.interval[0] for share in shares], [share.interval[1] for share in shares]
    axes.fill_between(covered, lows, highs, color=colour(0), alpha=0.2, linewidth=0)


def chosen_point(figures: Figures) -> CoveragePoint:
    """Return what the threshold of `unsure` does to the test photos."""
    return min(figures.coverage, key=lambda point: abs(point.threshold - figures.unsure_below))


def unlike(figures: Figures, pets: Array, others: Array | None) -> Figure:
    """Draw the unlike scores of the labels' photos and of other things, and the threshold between them."""
    figure, axes = canvas(height=3.8)
    both = pets if others is None else np.concatenate([pets, others])
    edges = np.linspace(float(both.min()), float(both.max()) + 1e-9, 41)
    each = [("test photos of the labels", pets, "///", "-")]
    if others is not None:
        each.append(("other things", others, "", "--"))
    for number, (name, scores, hatch, line) in enumerate(each):
        shares = np.histogram(scores, edges)[0] / len(scores)
        refused = float((scores > figures.unlike.threshold).mean())
        axes.stairs(
            shares, edges, fill=False, color=colour(number), linewidth=1.6,
            label=f"{name} (n = {len(scores):,}): {refused:.1%} refused", hatch=hatch, linestyle=line,
        )  # fmt: skip
    axes.axvline(figures.unlike.threshold, color=ink(), linewidth=1.2, label=f"unlike above {figures.unlike.threshold:.3g}")
    axes.set(
        yscale="log", xlabel="unlike score", ylabel="share of the photos (log scale)", title="Which photos are refused as unlike"
    )
    log_percent(axes.yaxis)
    figure.legend(fontsize=8, loc="outside lower center")
    return figure


def slices(figures: Figures) -> Figure:
    """Draw the accuracy on each kind of photo, and of each label."""
    labels = {f"true {label}": share for label, share in by_label(figures).items()}
    rows = {"all test photos": figures.test, **labels, **figures.slices}
    if figures.camera_photos:
        rows["camera photos"] = figures.camera_photos
    return dots(rows, "Accuracy by kind of photo (number of photos)")


def by_label(figures: Figures) -> dict[str, Share]:
    """Return the share of each label's test photos that is found."""
    rows = zip(figures.labels, figures.test.confusion, strict=True)
    return {label: share_of(row[index] / sum(row), sum(row)) for index, (label, row) in enumerate(rows) if sum(row)}


def scorecard(figures: Figures, before: Known | None) -> Figure:
    """Draw the accuracy after each corruption, beside that of the model before."""
    assert figures.scorecard
    count = figures.scorecard.photos
    ordered = sorted(figures.scorecard.accuracy.items(), key=lambda item: -item[1])
    rows: dict[str, Share] = {"as they are": figures.test, **{name: share_of(value, count) for name, value in ordered}}
    earlier = {"as they are": before.test.accuracy, **before.scorecard.accuracy} if before and before.scorecard else {}
    title = f"Accuracy after a corruption: mean {figures.scorecard.mean:.2%} (n = {count:,})"
    return dots(rows, title, earlier, before.name if before else "")


def dots(rows: dict[str, Share], title: str, earlier: dict[str, float] | None = None, earlier_name: str = "") -> Figure:
    """Draw shares with their intervals, one a line; the first is what the others are compared with."""
    figure, axes = canvas(7.2, 0.3 * len(rows) + 1.4)
    names = list(rows)
    heights = list(range(len(names)))[::-1]
    axes.axvline(rows[names[0]].accuracy, color=ink(), linewidth=0.8, linestyle=":")
    for height, name in zip(heights, names, strict=True):
        share = rows[name]
        axes.errorbar(share.accuracy, height, xerr=whiskers(share), fmt="o", color=colour(0), capsize=3)
        text = f" {share.accuracy:.1%}"
        axes.annotate(text, (1.0, height), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, annotation_clip=False)
    shown = {name: value for name, value in (earlier or {}).items() if name in rows}
    if shown:
        places = [heights[names.index(name)] for name in shown]
        axes.plot(list(shown.values()), places, "D", markerfacecolor="none", color=colour(1), label=earlier_name)
    axes.errorbar([], [], xerr=[[], []], fmt="o", color=colour(0), capsize=3, label="this model, 95 % interval")
    lowest = min([*(share.interval[0] for share in rows.values()), *shown.values()])
    start = max(0.0, math.floor((lowest - 0.005) * 50) / 50)
    axes.set(xlabel=f"accuracy (axis from {start:.0%})", xlim=(start, 1.002), ylim=(-0.6, len(names) - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axes.set_yticks(heights, [f"{name} ({rows[name].photos:,})" for name in names])
    axes.grid(visible=False, axis="y")
    percent(axes.xaxis)
    return figure
