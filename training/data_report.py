"""What the manifest found, for a person: counts, and a contact sheet of what looks suspicious."""

import io
import json
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw

from handler.photo_input import InvalidPhoto, open_photo, to_rgb
from training.files import write_atomically
from training.manifest import SPLITS, Manifest, Row
from training.photos import read_bytes

TILE, CAPTION, COLUMNS, MOST = 120, 28, 8, 160


def write_data_report(manifest: Manifest, folder: Path) -> None:
    """Write report.json, report.md and, if anything is suspicious, contact_sheet.png."""
    suspicious = [row for row in manifest.rows if row.verdict != "ok"]
    counts = {split: dict(sorted(Counter(row.label for row in manifest.split(split)).items())) for split in SPLITS}
    verdicts = dict(sorted(Counter(row.verdict for row in manifest.rows).items()))
    content = {"digest": manifest.digest, "labels": manifest.labels, "photos": counts, "verdicts": verdicts}
    write_atomically(folder / "report.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / "report.md", render(manifest, counts, verdicts, suspicious))
    if suspicious:
        write_atomically(folder / "contact_sheet.png", contact_sheet(suspicious[:MOST]))


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


def contact_sheet(rows: list[Row]) -> bytes:
    """Return a PNG of the photos with their verdicts."""
    height = (len(rows) + COLUMNS - 1) // COLUMNS * (TILE + CAPTION)
    sheet = Image.new("RGB", (COLUMNS * TILE, height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        x, y = index % COLUMNS * TILE, index // COLUMNS * (TILE + CAPTION)
        try:
            photo = to_rgb(open_photo(read_bytes(row.path)))
            photo.thumbnail((TILE - 6, TILE - 6))
            sheet.paste(photo, (x, y))
        except (InvalidPhoto, OSError, ValueError, SyntaxError):
            pen.text((x + 4, y + TILE // 2), "unreadable", fill="red")
        pen.text((x + 2, y + TILE - 4), f"{row.verdict}\n{Path(row.path).parent.name}/{Path(row.path).name}"[:44], fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
