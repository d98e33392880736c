"""What the manifest found, for a person: counts, and contact sheets of what looks suspicious."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from handler.photo_input import open_photo, to_rgb
from training.files import write_atomically
from training.manifest import SPLITS, Manifest, Row
from training.photos import read_bytes

TILE, CAPTION, COLUMNS, MOST = 120, 28, 8, 160
MOST_OF_A_KIND = 100  # doubts that the report lists


class Doubt(NamedTuple):
    """A photo whose label is likely wrong: how likely that label is, and a likelier one; none where it is unlike all others."""

    row: Row
    probability: float
    likelier: str

    @property
    def reason(self) -> str:
        return f"rather {self.likelier}" if self.likelier else "unlike all others"


def write_data_report(manifest: Manifest, folder: Path, doubts: list[Doubt] | None = None) -> None:
    """Write report.json, report.md and, where something is suspicious, its contact sheets; None: nobody looked for doubts."""
    suspicious = [row for row in manifest.rows if row.verdict != "ok"]
    counts = {split: dict(sorted(Counter(row.label for row in manifest.split(split)).items())) for split in SPLITS}
    verdicts = dict(sorted(Counter(row.verdict for row in manifest.rows).items()))
    content = {"digest": manifest.digest, "labels": manifest.labels, "photos": counts, "verdicts": verdicts}
    if doubts is not None:
        content["doubtful"] = {name: len(kind) for name, kind in kinds(doubts).items()}
    text = render(manifest, counts, verdicts, suspicious) + render_doubts(doubts)
    captions = [f"{row.verdict}\n{short(row)}" for row in suspicious[:MOST]]
    for name in ("contact_sheet.png", "doubtful.png", "doubtful.csv"):  # an older data set's
        (folder / name).unlink(missing_ok=True)
    write_atomically(folder / "report.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / "report.md", text)
    if suspicious:
        write_atomically(folder / "contact_sheet.png", contact_sheet(suspicious[:MOST], captions))
    if doubts:
        write_doubts(doubts, folder)


def render(manifest: Manifest, counts: dict[str, dict[str, int]], verdicts: dict[str, int], suspicious: list[Row]) -> str:
    lines = ["# Photos", "", f"Digest `{manifest.digest}`", "", f"| split | {' | '.join(manifest.labels)} |"]
    lines.append("|---" * (len(manifest.labels) + 1) + "|")
    for split, labels in counts.items():
        lines.append(f"| {split} | " + " | ".join(f"{labels.get(label, 0):,}" for label in manifest.labels) + " |")
    lines += ["", "| verdict | files |", "|---|---|"]
    lines += [f"| {verdict.replace('_', ' ')} | {count:,} |" for verdict, count in verdicts.items()]
    if suspicious:
        lines += ["", "## Left out", "", f"![contact sheet](contact_sheet.png) (the first {MOST})", ""]
        lines += [f"- {row.verdict.replace('_', ' ')}: `{row.path}`" for row in suspicious]
    return "\n".join(lines) + "\n"


def kinds(doubts: list[Doubt]) -> dict[str, list[Doubt]]:
    return {
        "another label is likelier": [doubt for doubt in doubts if doubt.likelier],
        "unlike all others": [doubt for doubt in doubts if not doubt.likelier],
    }


def listed(doubts: list[Doubt]) -> list[Doubt]:
    """Return the doubts that the report shows: the first of each kind."""
    return [doubt for kind in kinds(doubts).values() for doubt in kind[:MOST_OF_A_KIND]]


def render_doubts(doubts: list[Doubt] | None) -> str:
    """Return the report's section on doubtful labels."""
    lines = ["", "## Doubtful labels", ""]
    if doubts is None:
        lines.append("Not looked for. `make doubtful` lists the photos whose label is likely wrong.")
    elif not doubts:
        lines.append("None found.")
    else:
        lines.append(
            "Look at these photos, move or delete those whose label is wrong, and run `make data` again. None is left out."
        )
        lines += ["", "| doubt | photos | listed here |", "|---|---|---|"]
        lines += [f"| {name} | {len(kind):,} | {min(len(kind), MOST_OF_A_KIND)} |" for name, kind in kinds(doubts).items()]
        lines += ["", "All are in [doubtful.csv](doubtful.csv).", "", "![doubtful labels](doubtful.png)", ""]
        lines += ["| label | its probability | doubt | photo |", "|---|---|---|---|"]
        lines += [
            f"| {doubt.row.label} | {doubt.probability:.2f} | {doubt.reason} | `{doubt.row.path}` |" for doubt in listed(doubts)
        ]
    return "\n".join(lines) + "\n"


def write_doubts(doubts: list[Doubt], folder: Path) -> None:
    """Write all doubts as doubtful.csv, and the first ones' photos as doubtful.png."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "split", "label", "probability", "doubt"])
    writer.writerows((one.row.path, one.row.split, one.row.label, f"{one.probability:.4f}", one.reason) for one in doubts)
    write_atomically(folder / "doubtful.csv", text.getvalue())
    shown = listed(doubts)
    captions = [f"{one.row.label}? {one.reason}\n{short(one.row)}" for one in shown]
    write_atomically(folder / "doubtful.png", contact_sheet([one.row for one in shown], captions))


def short(row: Row) -> str:
    return f"{Path(row.path).parent.name}/{Path(row.path).name}"


def contact_sheet(rows: list[Row], captions: list[str]) -> bytes:
    """Return a PNG of the photos, each with its caption of two lines."""
    height = (len(rows) + COLUMNS - 1) // COLUMNS * (TILE + CAPTION)
    sheet = Image.new("RGB", (COLUMNS * TILE, height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        x, y = index % COLUMNS * TILE, index // COLUMNS * (TILE + CAPTION)
        try:
            photo = to_rgb(open_photo(read_bytes(row.path)))
            photo.thumbnail((TILE - 6, TILE - 6))
            sheet.paste(photo, (x, y))
        except Exception:  # as in training/manifest.py
            pen.text((x + 4, y + TILE // 2), "unreadable", fill="red")
        pen.text((x + 2, y + TILE - 4), "\n".join(line[:22] for line in caption.split("\n")), fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
