"""Bodies of attacks that need an image library: made once, and handed to the attackers as files."""

import base64
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from benchmarks.attackers import PHOTOS, flat_png
from benchmarks.drawing import draw_photo, encoded

SIDES = (7071, 6000, 5000, 4000, 3464, 2828, 2000, 1414)  # of square photos: 50, 36, 25, 16, 12, 8, 4 and 2 megapixels
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "jpg": ("JPEG", {"quality": 50, "optimize": True}),
    "progressive.jpg": ("JPEG", {"quality": 50, "progressive": True}),
    "webp": ("WEBP", {"quality": 10, "method": 0}),
    "avif": ("AVIF", {"quality": 10, "speed": 10}),
}


def flat(name: str, side: int) -> bytes:
    """Return a photo of one colour: few bytes, many pixels."""
    if name == "png":
        return flat_png(side)
    kind, options = FORMATS[name]
    return encoded(Image.new("RGB", (side, side), (120, 90, 60)), kind, **options)


def instances(photo: bytes) -> bytes:
    return json.dumps({"instances": [base64.b64encode(photo).decode()] * 32}).encode()


def photo_of(size: int) -> bytes:
    """Return a noisy JPEG of about as many bytes as asked for, and not more."""
    return next(
        data for side in range(900, 100, -20) if len(data := encoded(draw_photo("dog", 1, (side, side)), quality=90)) <= size
    )


def make(folder: Path, wanted: Iterable[str], answers: Callable[[bytes], bool]) -> None:
    """Write the files; `answers` says whether the server answers a photo when nobody else asks."""
    for name in sorted(set(wanted)):
        (folder / name).write_bytes(content(name, answers))


def content(name: str, answers: Callable[[bytes], bool]) -> bytes:
    kind, _, format = name.partition(".")
    if kind == "largest":
        return next(photo for side in SIDES if answers(photo := flat(format, side)))
    if name == "instances.json":
        return instances(photo_of(200_000))
    if name == "instances-50mp.json":
        return instances(flat_png(SIDES[0]))
    assert (kind, format in PHOTOS) == ("50mp", True), name
    return flat(format, SIDES[0])
