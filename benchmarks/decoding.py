"""What does a photo cost before the model sees it? Milliseconds of one core and peak memory, by format and size, and for JSON.

handler/cost.py takes its nanoseconds for a pixel and for a byte from the record. "flat" is one colour: the smallest file for
its pixels, so the cheapest to send. "photo" is smooth with a little noise, "noisy" is one taken in the dark, "noise" cannot be
compressed. Files above the limit on a request's size are measured as well, and marked.
"""

import argparse
import base64
import ctypes
import io
import json
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.drawing import draw_photo, encoded
from benchmarks.record import write_record
from handler.limits import MAX_BODY
from handler.photo_input import decode_photo
from handler.question import Request, read_question
from handler.refusal import Refusal

SIDE = 160  # of the network's square
MEGAPIXELS = (1, 4, 12, 25, 50)
LONG = 5000.0  # milliseconds: once is enough
SEGMENT = 0xDA  # a JPEG's start of scan
Draw = Callable[[tuple[int, int]], Image.Image]


@dataclass(frozen=True)
class Case:
    """One way of writing a photo."""

    name: str
    draw: Draw
    encode: Callable[[Image.Image], bytes]


@dataclass(frozen=True)
class Cost:
    """What one input cost."""

    milliseconds: list[float]
    peak_megabytes: float
    size: int


def flat(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, (90, 120, 30))


def photo(size: tuple[int, int]) -> Image.Image:
    """Smooth shapes and a little noise: compresses about as a camera's photo does."""
    width, height = size
    smooth = draw_photo("cat", 1, (width // 8 + 1, height // 8 + 1)).resize(size, Image.Resampling.BICUBIC)
    tile = np.random.default_rng(1).normal(128, 2, (512, 512)).astype(np.uint8)
    noise = Image.fromarray(np.tile(tile, (height // 512 + 1, width // 512 + 1))[:height, :width])
    return Image.blend(smooth, noise.convert("RGB"), 0.3)


def noisy(size: tuple[int, int]) -> Image.Image:
    """A photo taken in the dark: what compresses well is hard to decode."""
    width, height = size
    grain = np.random.default_rng(1).normal(0, 6, (height // 2 + 1, width // 2 + 1, 1)).repeat(2, 0).repeat(2, 1)
    smooth = np.asarray(draw_photo("cat", 1, (width // 8 + 1, height // 8 + 1)).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + grain[:height, :width].astype(np.int16)).clip(0, 255).astype(np.uint8))


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8))


def clear(size: tuple[int, int]) -> Image.Image:
    return flat(size).convert("RGBA")


def grey_16(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.asarray(photo(size).convert("L")).astype(np.uint16) * 257)


def to(format: str, **options: object) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image, format, **options)


def interlaced(image: Image.Image) -> bytes:
    """Write an Adam7 PNG, which Pillow reads but does not write; RGBA, 8 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = np.asarray(image.convert("RGBA"))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    data = io.BytesIO()
    for x, y, across, down in passes:
        for row in pixels[y::down, x::across]:
            data.write(b"\0" + row.tobytes())
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 6, 0, 0, 1)
    body = chunk(b"IDAT", zlib.compress(data.getvalue(), 6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def many_scans(image: Image.Image) -> bytes:
    """Repeat a progressive JPEG's last scan until it has a hundred: every scan goes over the whole photo again."""
    data = encoded(image, "JPEG", progressive=True, quality=50)
    start = data.rindex(bytes((0xFF, SEGMENT)))
    last, head = data[start:-2], data[:start]
    have = head.count(bytes((0xFF, SEGMENT)))
    return head + last * (100 - have) + data[-2:]


def run_lengths(image: Image.Image) -> bytes:
    """Write a BMP in runs of one pixel, the slowest of all: Pillow decodes runs in Python."""

    rows = np.zeros((image.height, image.width, 2), np.uint8)
    rows[:, :, 0] = 1
    runs = b"".join(row.tobytes() + b"\0\0" for row in rows) + b"\0\1"
    palette = bytes(1024)
    info = struct.pack("<IiiHHIIiiII", 40, image.width, image.height, 1, 8, 1, len(runs), 2835, 2835, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + info + palette + runs


CASES = [
    Case("JPEG, flat", flat, to("JPEG", quality=75)),
    Case("JPEG, photo", photo, to("JPEG", quality=85)),
    Case("JPEG, photo, 4:4:4 at 95", photo, to("JPEG", quality=95, subsampling=0)),
    Case("JPEG, noisy photo", noisy, to("JPEG", quality=90)),
    Case("JPEG progressive, flat", flat, to("JPEG", quality=75, progressive=True)),
    Case("JPEG progressive, photo", photo, to("JPEG", quality=85, progressive=True)),
    Case("JPEG progressive, noisy photo", noisy, to("JPEG", quality=90, progressive=True)),
    Case("JPEG progressive, flat, 100 scans", flat, many_scans),
    Case("PNG, flat", flat, to("PNG")),
    Case("PNG, photo", photo, to("PNG", compress_level=3)),
    Case("PNG, noise", noise, to("PNG", compress_level=1)),
    Case("PNG, flat, transparent", clear, to("PNG")),
    Case("PNG, flat, transparent, interlaced", flat, interlaced),
    Case("PNG, 16 bits, grey", grey_16, to("PNG", compress_level=3)),
    Case("PNG, palette", lambda size: photo(size).quantize(64, dither=Image.Dither.NONE), to("PNG", compress_level=3)),
    Case("PNG, noisy photo", noisy, to("PNG")),
    Case("WebP, flat", flat, to("WEBP", quality=75, method=0)),
    Case("WebP, photo", photo, to("WEBP", quality=80, method=0)),
    Case("WebP, noisy photo", noisy, to("WEBP", quality=85, method=0)),
    Case("WebP lossless, flat", flat, to("WEBP", lossless=True, method=0)),
    Case("WebP lossless, photo", photo, to("WEBP", lossless=True, method=0)),
    Case("GIF, flat", flat, to("GIF")),
    Case("GIF, photo", lambda size: photo(size).quantize(64, dither=Image.Dither.NONE), to("GIF")),
    Case("BMP", photo, to("BMP")),
    Case("BMP, runs of one pixel", flat, run_lengths),
    Case("TIFF, raw", photo, to("TIFF")),
    Case("TIFF, LZW, flat", flat, to("TIFF", compression="tiff_lzw")),
    Case("TIFF, deflate, photo", photo, to("TIFF", compression="tiff_deflate")),
    Case("TIFF, LZMA, photo", photo, to("TIFF", compression="lzma")),
    Case("TIFF, group 4, one bit", lambda size: Image.new("1", size), to("TIFF", compression="group4")),
    Case("AVIF, flat", flat, to("AVIF", quality=60, speed=10)),
    Case("AVIF, photo", photo, to("AVIF", quality=60, speed=10)),
    Case("AVIF, noisy photo", noisy, to("AVIF", quality=85, speed=10)),
    Case("HEIC, flat", flat, to("HEIF", quality=50)),
    Case("HEIC, photo", photo, to("HEIF", quality=50)),
    Case("HEIC, noisy photo", noisy, to("HEIF", quality=50)),
]


def dimensions(megapixels: float) -> tuple[int, int]:
    """Return width and height of a 4:3 photo."""
    height = int((megapixels * 1e6 * 3 / 4) ** 0.5)
    return int(megapixels * 1e6 / height), height


def status(name: str) -> int:
    """Return a figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(action: Callable[[], object], repeat: int, size: int) -> Cost:
    """Return the times of some runs, one of what takes seconds, and by how much memory grew at its peak."""
    times = [timed(action)]
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    if times[0] < LONG:
        times = [timed(action) for _ in range(repeat)]
    return Cost(times, (status("VmHWM") - before) / 1e6, size)


def timed(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return 1000 * (time.process_time() - started)


def photos(chosen: str, megapixels: list[int], repeat: int) -> Iterator[tuple[str, int, Cost]]:
    for case in CASES:
        if chosen not in case.name:
            continue
        for million in megapixels:
            data = case.encode(case.draw(dimensions(million)))
            yield case.name, million, measure(lambda data=data: decode_photo(data, SIDE), repeat, len(data))  # type: ignore[misc]


def questions() -> Iterator[tuple[str, bytes]]:
    """Yield JSON bodies of every kind that costs something."""
    for side in (160, 320, 512, 1024):
        pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3)).tolist()
        yield f"pixels, {side}x{side}", json.dumps({"pixels": pixels}, separators=(",", ":")).encode()
    for megabytes in (1, 4, 9):
        text = base64.b64encode(bytes(megabytes * 750_000)).decode()
        yield f"base64, {megabytes} MB", json.dumps({"image": text}).encode()
    yield "base64 with blanks, 9.9 MB", json.dumps({"image": "AAAA " * 1_980_000}).encode()
    jpeg = encoded(photo((1600, 1200)), quality=90)
    text = base64.b64encode(jpeg).decode()
    yield f"32 instances of {len(jpeg) // 1000} KB", json.dumps({"instances": [text] * 32}).encode()
    yield "nested 5,000,000 deep", b'{"image":' + b"[" * 5_000_000
    yield "3,300,000 empty lists", b'{"image":[' + b"[]," * 3_300_000 + b"1]}"
    yield "5,000,000 numbers", b'{"image":[' + b"1," * 4_990_000 + b"1]}"
    yield "lists 400 deep, 4,900,000 in all", b'{"image":[' + (b"[" * 400 + b"]" * 400 + b",") * 12_250 + b"1]}"
    yield "a number of 9,000,000 digits", b'{"image":0.' + b"1" * 9_000_000 + b"}"
    yield "a text of 1,600,000 escapes", b'{"image":"' + rb"\u0041" * 1_600_000 + b'"}'


def ask(body: bytes) -> object:
    """Read a question as a worker does; a refusal costs what it costs."""
    try:
        return read_question(Request("id", body=body, content_type="application/json"))
    except Refusal as refusal:
        return refusal.code


def in_words(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} [{min(times):.1f}-{max(times):.1f}]"


def photo_table(found: list[tuple[str, int, Cost]]) -> list[str]:
    """Return a row per way of writing a photo, a column per size."""
    sizes = sorted({million for _, million, _ in found})
    by_name: dict[str, dict[int, Cost]] = {}
    for name, million, cost in found:
        by_name.setdefault(name, {})[million] = cost
    lines = [
        f"| milliseconds | {' | '.join(f'{million} MP' for million in sizes)} | ns per pixel, most | peak MB at {sizes[-1]} MP |",
        "|---|" + "---|" * (len(sizes) + 2),
    ]
    for name, costs in by_name.items():
        cells = [in_words(costs[size].milliseconds) + (" *" if costs[size].size > MAX_BODY else "") for size in sizes]
        worst = max(statistics.median(cost.milliseconds) / million for million, cost in costs.items())
        lines.append(f"| {name} | {' | '.join(cells)} | {worst:.1f} | {costs[sizes[-1]].peak_megabytes:.0f} |")
    return [*lines, "", f"\\* larger than the {MAX_BODY:,} bytes that a request may have"]


def question_table(found: list[tuple[str, int, Cost]]) -> list[str]:
    lines = ["| JSON, read but not decoded | bytes | milliseconds | ns per byte | peak MB |", "|---|---|---|---|---|"]
    for name, size, cost in found:
        nanoseconds = 1e6 * statistics.median(cost.milliseconds) / size
        lines.append(f"| {name} | {size:,} | {in_words(cost.milliseconds)} | {nanoseconds:.1f} | {cost.peak_megabytes:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this; JSON for the other table alone")
    parser.add_argument("--megapixels", type=int, nargs="+", default=list(MEGAPIXELS))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name, million, cost in photos(args.only, args.megapixels, args.repeat):
        found.append((name, million, cost))
        print(
            f"{name}, {million} MP, {cost.size:,} bytes: {in_words(cost.milliseconds)} ms, {cost.peak_megabytes:.0f} MB",
            flush=True,
        )
    lines = photo_table(found) if found else []
    if args.only in ("", "JSON"):
        asked = [(name, len(body), measure(lambda body=body: ask(body), args.repeat, len(body))) for name, body in questions()]  # type: ignore[misc]
        lines += ["", *question_table(asked)]
    print("\n".join(lines))
    if args.record:
        note = f"processor time of one core, median of {args.repeat} [least-most], one run of what takes seconds"
        note += f"; {args.note}" if args.note else ""
        write_record("decoding", "What reading a photo costs", "python -m benchmarks.decoding", lines, note)


if __name__ == "__main__":
    main()
