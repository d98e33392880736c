"""Screens of the page as they were when somebody last looked at them: screens/*.png, small.

`PETCLF_SCREENS=keep` with tests/e2e/test_page.py takes them again. Look at them before you commit them.
"""

import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KEPT = Path(__file__).parent / "screens"
WIDTH = 160
FONT = "DejaVu Sans"  # other fonts move up to a third of a narrow screen
PART = 8  # pixels: a part of a screen in which something may have moved


def font() -> str:
    """Return the font that the page gets here."""
    if shutil.which("fc-match") is None:
        return "not known"
    return subprocess.run(["fc-match", "-f", "%{family}", "system-ui"], capture_output=True, text=True, check=False).stdout


HERE = font()


def screen(page: Any) -> Image.Image:
    """Return what is on the screen, small."""
    page.evaluate("scrollTo(0, 0)")
    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return whole.resize((WIDTH, round(whole.height * WIDTH / whole.width)), Image.Resampling.BOX)


def changed(name: str, seen: Image.Image, folder: Path) -> float:
    """Return the share of the screen that looks otherwise than it did; what was seen is written into the folder."""
    if os.environ.get("PETCLF_SCREENS") == "keep":
        KEPT.mkdir(exist_ok=True)
        seen.quantize(64).save(KEPT / f"{name}.png", optimize=True)
    seen.save(folder / f"{name}.png")
    with Image.open(KEPT / f"{name}.png") as kept:
        return differing(kept.convert("RGB"), seen)


def differing(kept: Image.Image, seen: Image.Image) -> float:
    """Return the share of parts of two pictures whose mean colours differ by more than a tenth of the range."""
    if kept.size != seen.size:
        return 1.0
    parts = [(size + PART - 1) // PART for size in seen.size]
    means = (np.asarray(one.resize((parts[0], parts[1]), Image.Resampling.BOX), dtype=float) for one in (kept, seen))
    first, second = means
    return float((np.abs(first - second).max(axis=2) > 25).mean())
