"""Made-up lines of the prediction log: photos of a calm day, and what a test changes about them."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from operate.photo_log import Photo, read_photo

START = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


def entries(count: int, seed: int = 0, first: int = 0, version: str = "2.0.0", **changes: Any) -> list[dict[str, Any]]:
    """Return photos of one a second, the first of them `first` seconds after START; `changes` sets facts of all of them."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        brightness, contrast = random.normal(0.46, 0.1), random.normal(0.2, 0.05)
        photo = {
            "format": "JPEG", "width": int(random.choice([640, 1024])), "height": 480, "bytes": int(random.integers(20_000, 90_000)),
            "brightness": round(brightness, 4), "contrast": round(contrast, 4),
            "sharpness": round(random.normal(0.05, 0.01), 4), "colourfulness": round(random.normal(0.1, 0.02), 4),
        }  # fmt: skip
        entry: dict[str, Any] = {
            "time": (START + timedelta(seconds=first + index)).isoformat(timespec="milliseconds"),
            "request_id": f"{first + index}", "label": str(random.choice(["cat", "dog"])),
            "confidence": round(random.beta(20, 1), 6), "unlike": round(random.normal(0.6, 0.1), 6),
            "unsure_because": "close_call" if random.random() < 0.08 else None, "version": version, "photo": photo,
            "milliseconds": {"decode": 1.0, "model": 5.0},
        }  # fmt: skip
        for name, value in changes.items():
            (photo if name in photo else entry)[name] = value
        made.append(entry)
    return made


def darker(made: list[dict[str, Any]], by: float = 0.2) -> list[dict[str, Any]]:
    return [{**one, "photo": {**one["photo"], "brightness": round(one["photo"]["brightness"] - by, 4)}} for one in made]


def as_text(made: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in made)


def photos(made: list[dict[str, Any]]) -> list[Photo]:
    found = [read_photo(json.dumps(one).encode()) for one in made]
    assert None not in found
    return [one for one in found if one]


def written(path: Path, *parts: list[dict[str, Any]]) -> Path:
    path.write_text("".join(map(as_text, parts)), encoding="utf-8")
    return path
