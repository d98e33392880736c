"""reports/: the figures as a person reads them, in one HTML file that needs no network, and the pictures beside it."""

import base64
import io
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import torch
from PIL import Image

from training.compare import Difference, Known, differences, known
from training.figures import Figures, Share
from training.files import write_atomically
from training.plots import DARK, LIGHT, Evidence, as_png, by_label, chosen_point, pictures

REPORT = "report.html"
TEMPLATE = Path(__file__).with_suffix(".html")
MISTAKES = 24  # as many are shown; all are counted
TILE = 160  # pixels of a mistake's side
WIDE = {"curves"}
CAPTIONS = {
    "curves": "The loss tells when the training overfits: validation rises while training falls.",
    "confusion": "Rows are the true labels, columns the answers.",
    "roc": "Each point is one threshold. Both axes are logarithmic, because at 99 % the whole curve hides in the corner.",
    "precision_recall": "Each point is one threshold.",
    "reliability": "A calibrated model lies on the dotted line. The histogram shows how many photos each point rests on.",
    "coverage": "Calling more answers unsure (further left) makes the others safer.",
    "unlike": "Photos right of the threshold are refused. Good scores keep the two outlines apart.",
    "slices": "Kinds of photo overlap. The number in brackets counts the photos.",
    "scorecard": "Each test photo is changed in one way and answered again.",
}


def write_report(figures: Figures, evidence: Evidence, folder: Path, before: Known | None = None) -> Path:
    """Draw the pictures and write the report around them; returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, draw in pictures(figures, evidence, before).items():
        light = as_png(draw, LIGHT)
        write_atomically(folder / f"{name}.png", light)
        shown.append(picture(name, light, as_png(draw, DARK)))
    write_atomically(folder / REPORT, render(figures, evidence, before, shown))
    return folder / REPORT


def how_to_open(folder: Path) -> str:
    """Return where the report is and what comes next, for the end of the evaluation."""
    report = folder / REPORT
    return (
        f"what now: open {report} in a browser ({report.resolve().as_uri()}); "
        "then `make export` writes build/petclf.pt, and `make register` logs figures, report and model to MLflow"
    )


def render(figures: Figures, evidence: Evidence, before: Known | None, shown: list[str]) -> str:
    """Return the report as HTML."""
    sections = [
        summary(figures),
        cards(figures),
        comparison(figures, before),
        all_figures(figures),
        section("Pictures", f'<div class="pictures">{"".join(shown)}</div>'),
        section("Mistakes", mistakes(evidence, figures.labels)),
    ]
    title = f"How good the model is: {', '.join(figures.labels)}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=escape(title), body="\n".join(sections))


def summary(figures: Figures) -> str:
    photos, minutes = figures.photos, figures.training_minutes
    return (
        f"<h1>How good the model is</h1>\n<p>It tells apart {escape(', '.join(figures.labels))}. "
        f"{figures.parameters:,} parameters, {figures.image_size} px, trained in {minutes:.0f} minutes on {photos['train']:,} "
        f"photos; temperature and thresholds are chosen on {photos['val']:,} validation photos. Everything below is measured on "
        f"{figures.test.photos:,} held-out test photos, one forward pass each, unless it says otherwise.</p>\n"
        f'<p class="note">Digest of photos, labels and splits: <code>{figures.data_digest}</code></p>'
    )


def cards(figures: Figures) -> str:
    """Return the figures that matter first, large."""
    sure = figures.sure or chosen_point(figures)
    shown = [(f"{figures.test.accuracy:.2%}", f"of test photos are right; 95 % interval {between(figures.test)}")]
    if figures.camera_photos:
        text = f"of {figures.camera_photos.photos:,} camera photos are right; 95 % interval {between(figures.camera_photos)}"
        shown.append((f"{figures.camera_photos.accuracy:.2%}", text))
    shown.append((f"{sure.coverage:.1%}", f"of answers are sure; {1 - sure.accuracy:.2%} of those are wrong"))
    if figures.unlike.others_refused is not None:
        text = f"of {figures.unlike.others:,} other things are refused as unlike, and {figures.unlike.pets_refused:.1%} of test photos"
        shown.append((f"{figures.unlike.others_refused:.1%}", text))
    if figures.scorecard:
        worst = min(figures.scorecard.accuracy, key=figures.scorecard.accuracy.__getitem__)
        text = f"right on average after a corruption; worst: {worst}, {figures.scorecard.accuracy[worst]:.1%}"
        shown.append((f"{figures.scorecard.mean:.2%}", text))
    boxes = (f'<div class="card"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in shown)
    return f'<div class="cards">{"".join(boxes)}</div>'


def comparison(figures: Figures, before: Known | None) -> str:
    """Return the table of this model against the one before it."""
    if before is None:
        return ""
    now = known(figures, "this model")
    rows = [
        [row.name, written(row.before, row), written(row.now, row), *spread(row), row.verdict] for row in differences(before, now)
    ]
    same = before.data_digest == figures.data_digest
    photos = (
        "Both models were measured on the same photos; the intervals treat them as different ones, which makes them too wide."
        if same
        else "The two models were measured on different photos (their data digests differ)."
    )
    note = (
        f'<p class="note">A difference is called better or worse when its 95 % interval leaves out 0 (Newcombe, from both Wilson '
        f"intervals). {photos} One in twenty such intervals misses the truth by chance.</p>"
    )
    headings = ["figure", before.name, "this model", "difference", "95 % interval", "verdict"]
    return section(f"Against {before.name}", table(headings, rows, classes=[row[-1] for row in rows]) + note)


def written(value: float, row: Difference) -> str:
    return f"{value:.2%}" if row.kind == "share" else f"{value:.4f}"


def spread(row: Difference) -> tuple[str, str]:
    """Return a difference and its interval, in points where the figure is a share."""
    if row.kind != "share":
        return f"{row.difference:+.4f}", ""
    difference = f"{100 * row.difference:+.2f} points"
    return difference, f"{100 * row.interval[0]:+.2f} to {100 * row.interval[1]:+.2f}" if row.interval else ""


def all_figures(figures: Figures) -> str:
    test, unlike = figures.test, figures.unlike
    rows = [share_row("accuracy", test), share_row("validation accuracy (thresholds were chosen on these photos)", figures.val)]
    rows += [share_row(f"accuracy on true {label}", share) for label, share in by_label(figures).items()]
    rows += [share_row(f"accuracy on {name} photos", share) for name, share in figures.slices.items()]
    if figures.camera_photos:
        rows.append(share_row("accuracy on camera photos", figures.camera_photos))
    if figures.int8:
        rows.append(share_row("accuracy in int8", figures.int8.test))
        rows.append(["int8 answers as fp32 does", f"{figures.int8.same_answer:.2%}", "", f"{test.photos:,}"])
    if figures.sure:
        rows.append(share_row("accuracy of sure answers", figures.sure))
    rows += [[f"F1 of {label}", f"{value:.2%}", "", f"{test.photos:,}"] for label, value in test.f1.items()]
    rows += [
        ["balanced accuracy", f"{test.balanced_accuracy:.2%}", "", f"{test.photos:,}"],
        ["area under ROC", "" if test.roc_auc is None else f"{test.roc_auc:.4f}", "", f"{test.photos:,}"],
        ["log loss", f"{test.log_loss:.4f}", "", f"{test.photos:,}"],
        ["calibration error before scaling", f"{figures.calibration_error_before:.4f}", "", f"{test.photos:,}"],
        [
            f"calibration error after scaling by {figures.temperature:.2f}",
            f"{test.calibration_error:.4f}",
            "",
            f"{test.photos:,}",
        ],
        ["test photos refused as unlike", f"{unlike.pets_refused:.2%}", "", f"{test.photos:,}"],
    ]
    rows += [[f"baseline: {name}", f"{value:.2%}", "", f"{test.photos:,}"] for name, value in (figures.baselines or {}).items()]
    return section("All figures", table(["figure", "value", "95 % interval", "photos"], rows) + promise(figures))


def promise(figures: Figures) -> str:
    """Return what is promised of sure answers, and what that rests on."""
    made = figures.promise
    if made is None:
        return ""
    text = (
        f"Promise: with {made.confidence:.0%} confidence at most {made.wrong_when_sure:.2%} of the sure answers are wrong, on photos "
        f"like the validation photos ({made.wrong:,} of {made.sure:,} sure answers were wrong there)."
        if made.kept
        else f"No promise: {made.sure:,} sure validation photos with {made.wrong:,} wrong cannot show that at most "
        f"{made.wrong_when_sure:.2%} of sure answers are wrong. More validation photos, or a better model, can."
    )
    return f"<p>{text}</p>"


def share_row(name: str, share: Share) -> list[str]:
    return [name, f"{share.accuracy:.2%}", between(share), f"{share.photos:,}"]


def between(share: Share) -> str:
    low, high = share.interval
    return f"{low:.2%} to {high:.2%}"


def mistakes(evidence: Evidence, labels: list[str]) -> str:
    """Return the most confident wrong answers as pictures, with how many there are in all."""
    answers, confidence = evidence.probabilities.argmax(1), evidence.probabilities.max(1)
    wrong = np.flatnonzero(answers != evidence.truth)
    if not len(wrong):
        return f"<p>None: all {len(answers):,} test photos are answered right.</p>"
    shown = wrong[np.argsort(-confidence[wrong])][:MISTAKES]
    tiles = [
        tile(evidence.photos[int(index)], labels[evidence.truth[index]], labels[answers[index]], float(confidence[index]))
        for index in shown
    ]
    some = f"{len(shown):,} of {len(wrong):,} mistakes" if len(shown) < len(wrong) else f"All {len(wrong):,} mistakes"
    return f'<p>{some} among {len(answers):,} test photos, the most confident first.</p><div class="tiles">{"".join(tiles)}</div>'


def tile(photo: torch.Tensor, truth: str, answer: str, confidence: float) -> str:
    image = Image.fromarray(photo.permute(1, 2, 0).numpy())
    image.thumbnail((TILE, TILE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    text = f"{escape(truth)}, answered {escape(answer)} at {confidence:.1%}"
    return (
        f'<figure class="tile"><img src="{data_uri(buffer.getvalue(), "jpeg")}" alt=""><figcaption>{text}</figcaption></figure>'
    )


def picture(name: str, light: bytes, dark: bytes) -> str:
    caption = escape(CAPTIONS[name])
    kind = ' class="wide"' if name in WIDE else ""
    return (
        f'<figure{kind}><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{data_uri(dark, "png")}">'
        f'<img src="{data_uri(light, "png")}" alt="{escape(name)}: {caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"


def table(headings: list[str], rows: list[list[str]], classes: list[str] | None = None) -> str:
    """Return a table; columns of numbers are aligned right."""
    numeric = [bool(column) and any(is_number(row[column]) for row in rows) for column in range(len(headings))]
    head = "".join(cell("th", heading, number) for heading, number in zip(headings, numeric, strict=True))
    kinds = classes or [""] * len(rows)
    body = "".join(
        f'<tr class="{escape(kind)}">{"".join(cell("td", *one) for one in zip(row, numeric, strict=True))}</tr>'
        for kind, row in zip(kinds, rows, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def is_number(text: str) -> bool:
    return text[:1] in "+-0123456789" and bool(text)


def cell(kind: str, text: str, number: bool) -> str:
    place = ' class="number"' if number else ""
    return f"<{kind}{place}>{escape(text)}</{kind}>"
