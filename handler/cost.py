"""What a request will cost, told from headers and counts before a pixel is decoded, and who of a batch is let in.

All requests of a batch are answered together, when the last of them is read: a dear one makes its neighbours wait. Seconds are
those of one core.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from handler.limits import DEAR_SECONDS, MAX_NUMBERS, MOST_SECONDS, SHARED_SECONDS
from handler.refusal import Refusal

# Nanoseconds for a pixel and for a byte of the file, of the dearest way of writing the format, rounded up: benchmarks/decoding.py
NANOSECONDS: dict[str, tuple[float, float]] = {
    "JPEG": (1, 15), "MPO": (1, 15), "PNG": (20, 40), "WEBP": (25, 80), "GIF": (15, 10),
    "BMP": (15, 0), "TIFF": (15, 60), "AVIF": (15, 100), "HEIF": (55, 90),
}  # fmt: skip
IN_RUNS = (100.0, 700.0)  # a BMP in runs, which Pillow reads in Python
START_OF_SCAN = b"\xff\xda"
RUNS = (1, 2)  # BMP's numbers for these ways of writing
IN_FULL = 18  # more for a pixel of a JPEG that is decoded in full; at an eighth of its size, as usual, a 64th of that
A_SCAN = 2  # more for a pixel: each scan of a progressive JPEG goes over the whole photo again
A_SIDE = 40  # for a pixel of width or height: the weights of resizing, which count for very long photos
ALPHA = 20  # more for a pixel: transparent parts become white

EACH_PHOTO = 0.005  # seconds, whatever its size: its header, and its part of the model's time
PICTURE = 0.04  # seconds more for a heat map as PNG
ADDRESS = 0.25  # seconds: what lies there is not known yet, and may be dear
A_BYTE = 20e-9  # seconds for a byte of JSON: it is parsed, it is base64, and what it holds is decoded
A_NUMBER = 500e-9  # seconds for a number, a list or an object in JSON


def of_body(body: bytes | bytearray) -> float:
    """Return the seconds that a JSON body takes before its photos are known, or refuse it."""
    letters = np.frombuffer(body, np.uint8)  # ten times as fast as bytes.count
    numbers = sum(int(np.count_nonzero(letters == ord(mark))) for mark in ",[{")
    if numbers > MAX_NUMBERS:
        raise Refusal(
            "too_large", f"the JSON holds {numbers:,} numbers and lists; the limit is {MAX_NUMBERS:,}: send the photo itself"
        )
    return len(body) * A_BYTE + numbers * A_NUMBER


def of_photo(photo: Image.Image, data: bytes, side: int) -> float:
    """Return the seconds that an opened photo takes to become a square of this side, or refuse it."""
    a_pixel, a_byte = nanoseconds(photo, data, side)
    pixels = photo.width * photo.height
    others = len(data) * a_byte + (photo.width + photo.height) * A_SIDE
    left = MOST_SECONDS * 1e9 - others
    if pixels * a_pixel > left:
        most = max(0, int(left / a_pixel))
        kind = f"a {photo.format} of this kind and of {len(data):,} bytes"
        raise Refusal("too_many_pixels", f"the photo is {photo.width}x{photo.height}; the limit is {most:,} pixels for {kind}")
    return EACH_PHOTO + (pixels * a_pixel + others) / 1e9


def nanoseconds(photo: Image.Image, data: bytes, side: int) -> tuple[float, float]:
    """Return what a pixel of this photo costs, and a byte."""
    if photo.format == "BMP" and photo.info.get("compression") in RUNS:
        return IN_RUNS
    a_pixel, a_byte = NANOSECONDS[photo.format or ""]
    if photo.format in ("JPEG", "MPO"):
        a_pixel += IN_FULL / jpeg_scale(photo, side) ** 2
        if photo.info.get("progressive"):
            a_pixel += A_SCAN * (data.count(START_OF_SCAN) - 1)
    if photo.mode in ("RGBA", "LA", "PA") or "transparency" in photo.info:
        a_pixel += ALPHA
    return a_pixel, a_byte


def jpeg_scale(photo: Image.Image, side: int) -> int:
    """Return by how much Pillow makes a JPEG smaller while it decodes it, so that it is not smaller than the square."""
    return next((scale for scale in (8, 4, 2) if min(photo.size) >= scale * side), 1)


def too_much(seconds: float) -> Refusal | None:
    """Return the refusal of a request that takes too long even alone."""
    if seconds <= MOST_SECONDS:
        return None
    much = f"its photos would take about {seconds:.1f} seconds to read; the limit is {MOST_SECONDS:g} a request"
    return Refusal("too_many_instances", f"{much}: send fewer at once, or smaller ones")


def turned_away(costs: Sequence[float], may_do_dear_work: Callable[[], bool]) -> list[bool]:
    """Tell of each request of a batch whether it must be sent again.

    The cheapest are let in first. Beside a cheap one no dear one is, and all together take SHARED_SECONDS at most. Dear ones alone
    are let in if this worker may do dear work now, until MOST_SECONDS are used up.
    """
    cheap = [index for index, cost in enumerate(costs) if cost <= DEAR_SECONDS]
    let_in: set[int] = set()
    if cheap:
        let_in = cheapest(costs, cheap, SHARED_SECONDS)
    elif costs and may_do_dear_work():
        let_in = cheapest(costs, range(len(costs)), MOST_SECONDS)
    return [index not in let_in for index in range(len(costs))]


def cheapest(costs: Sequence[float], of: Iterable[int], seconds: float) -> set[int]:
    """Return as many requests as there is time for, at least one."""
    total = 0.0
    chosen: set[int] = set()
    for index in sorted(of, key=lambda index: costs[index]):
        total += costs[index]
        if total <= seconds or not chosen:
            chosen.add(index)
    return chosen


def gives_way() -> Refusal:
    return Refusal("dear_request", "this takes long to read and gives way to other requests now; send it again")
