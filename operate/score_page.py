"""The report of a running server's answers about labelled photos."""

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from operate.labelled import Bin, Figures, Mistake
from operate.page import between, cards, page, paragraph, percent, section, table
from operate.shares import Share, share_of

FEW = 10  # photos in a bin, below which its point is drawn hollow
SIDE, MARGIN = 260, 44  # of the picture, in its own units
TILE = 160  # pixels of a photo's side
TILES = 48  # photos that the report shows at most; all mistakes are in its table


def render(facts: dict[str, Any], found: Figures, sentences: Iterable[str], photos: dict[str, Path] | None) -> str:
    """Return the report as HTML; with `photos` (by name) it shows those that were answered wrong."""
    about = f"{facts['photos']:,} photos of {facts['source']}, asked of {facts['model']} at {facts['server']} on {facts['time']}."
    sections = [
        paragraph(about),
        *map(paragraph, sentences),
        headlines(found),
        section("Figures", table(["figure", "value", "95 % interval", "photos"], rows(found))),
        section("Confusion", confusion(found)),
        section("Calibration", calibration(found)),
        section("Mistakes", mistakes(found.mistakes, photos or {})),
    ]
    if found.not_answered:
        refused = [[one.photo, one.truth, one.error] for one in found.not_answered]
        sections.append(section("Not answered", table(["photo", "true label", "reason"], refused)))
    return page("How right the server is", sections)


def headlines(found: Figures) -> str:
    shown = [
        (percent(found.accuracy.share), f"of {found.measured:,} photos are right; 95 % interval {between(found.accuracy)}"),
        (percent(found.unsure.share, 1), f"of answers are unsure; of the others {percent(found.sure.share)} are right"),
    ]
    if found.milliseconds:
        shown.append((f"{found.milliseconds.p50:.1f} ms", f"median latency; p99 {found.milliseconds.p99:.1f} ms"))
    return cards(shown)


def rows(found: Figures) -> list[list[str]]:
    """Return every figure with its interval and what it rests on."""
    shown = [row("accuracy", found.accuracy)]
    shown += [row(f"accuracy on true {label}", one.right) for label, one in found.by_label.items() if label in found.labels]
    shown += [
        ["balanced accuracy", percent(found.balanced_accuracy), "", f"{found.measured:,}"],
        row("accuracy of sure answers", found.sure),
        row("unsure", found.unsure),
        row("unlike the training photos", found.unlike),
    ]
    for label, one in found.by_label.items():
        shown += [row(f"unsure on true {label}", one.unsure), row(f"unlike on true {label}", one.unlike)]
    if found.calibration_error is not None:
        shown.append(["calibration error, 15 bins", f"{found.calibration_error:.4f}", "", f"{found.measured:,}"])
    for name, value in vars(found.milliseconds).items() if found.milliseconds else ():
        shown.append([f"latency {name}", f"{value:.1f} ms", "", f"{found.answered:,}"])
    shown += [[f"answered by version {version}", "", "", f"{count:,}"] for version, count in found.versions.items()]
    return shown + [[f"answered by archive {archive}", "", "", f"{count:,}"] for archive, count in found.archives.items()]


def row(name: str, share: Share) -> list[str]:
    return [name, percent(share.share), between(share), f"{share.photos:,}"]


def confusion(found: Figures) -> str:
    if not found.confusion:
        return paragraph("No photo was answered.")
    counts = [[truth, *(f"{count:,}" for count in answers.values())] for truth, answers in found.confusion.items()]
    return paragraph("Rows are the true labels, columns the answers.") + table(["", *found.labels], counts)


def calibration(found: Figures) -> str:
    if found.calibration_error is None:
        return paragraph("No photo could be measured.")
    text = (
        f"Calibration error {found.calibration_error:.4f}. A calibrated model lies on the dotted line: of the answers with confidence "
        f"0.9, nine in ten are right. Bars are 95 % intervals; hollow points have fewer than {FEW} photos."
    )
    shares = [share_of(round(one.accuracy * one.photos), one.photos) for one in found.reliability]
    counts = [
        [f"{one.confidence:.3f}", percent(one.accuracy), between(share), f"{one.photos:,}"]
        for one, share in zip(found.reliability, shares, strict=True)
    ]
    headings = ["mean confidence", "accuracy", "95 % interval", "photos"]
    return paragraph(text) + picture(found.reliability, shares) + table(headings, counts)


def picture(bins: list[Bin], shares: list[Share]) -> str:
    """Draw accuracy over confidence."""
    whole = SIDE + 2 * MARGIN
    axis = f'<path class="axis" d="M{MARGIN} {MARGIN}V{MARGIN + SIDE}H{MARGIN + SIDE}"/>'
    ideal = f'<path class="ideal" d="M{across(0)} {down(0)}L{across(1)} {down(1)}"/>'
    names = (
        f'<text x="{across(0.5)}" y="{whole - 8}" text-anchor="middle">confidence</text>'
        f'<text x="{MARGIN - 6}" y="{MARGIN - 10}" text-anchor="middle">accuracy</text>'
    )
    steps = "".join(
        f'<text x="{across(value)}" y="{down(0) + 16}" text-anchor="middle">{value:g}</text>'
        f'<text x="{MARGIN - 6}" y="{down(value) + 4}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.5, 1)
    )
    points = "".join(point(*one) for one in zip(bins, shares, strict=True))
    return f'<svg viewBox="0 0 {whole} {whole}" role="img" aria-label="accuracy over confidence">{axis}{ideal}{names}{steps}{points}</svg>'


def point(one: Bin, share: Share) -> str:
    low, high = share.interval or (one.accuracy, one.accuracy)
    x = across(one.confidence)
    few = ' class="few"' if one.photos < FEW else ""
    whisker = f'<path class="whisker" d="M{x} {down(low)}V{down(high)}"/>'
    return f'{whisker}<circle{few} cx="{x}" cy="{down(one.accuracy)}" r="4"><title>{one.photos:,} photos</title></circle>'


def across(share: float) -> float:
    return round(MARGIN + share * SIDE, 1)


def down(share: float) -> float:
    return round(MARGIN + (1 - share) * SIDE, 1)


def mistakes(wrong: list[Mistake], photos: dict[str, Path]) -> str:
    if not wrong:
        return paragraph("None of the measured photos.")
    lines = [[one.photo, one.truth, one.label, percent(one.confidence, 1), unsure(one)] for one in wrong]
    shown = "".join(tile(one, photos[one.photo]) for one in wrong[:TILES] if one.photo in photos)
    pictures = f'<div class="tiles">{shown}</div>' if shown else ""
    return pictures + table(["photo", "true label", "answer", "confidence", "unsure"], lines)


def unsure(one: Mistake) -> str:
    return (one.unsure_because or "no").replace("_", " ")


def tile(one: Mistake, path: Path) -> str:
    """Return a photo with its caption; without the picture where it cannot be drawn."""
    image = thumbnail(path)
    drawn = f'<img src="data:image/jpeg;base64,{base64.b64encode(image).decode()}" alt="">' if image else ""
    text = f"{one.photo}: {one.truth}, answered {one.label} at {percent(one.confidence, 1)}"
    return f"<figure>{drawn}<figcaption>{escape(text)}</figcaption></figure>"


def thumbnail(path: Path) -> bytes | None:
    """Return a photo as a small JPEG without its metadata."""
    from PIL import Image, ImageOps  # noqa: PLC0415  (only reports with photos need it)

    try:
        with Image.open(path) as photo:
            photo.thumbnail((TILE, TILE))
            buffer = io.BytesIO()
            ImageOps.exif_transpose(photo).convert("RGB").save(buffer, "JPEG", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return buffer.getvalue()
