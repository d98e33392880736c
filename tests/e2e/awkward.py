"""Photos as they come from life, and what only claims to be one: each with what a server must say to it."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.drawing import draw_photo, encoded

PHOTO = draw_photo("dog", 7, (120, 90))
TURNS = [
    None, None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270,
]  # fmt: skip


@dataclass(frozen=True)
class Awkward:
    """One file; a photo has an upright twin that must be answered the same, within `apart`."""

    data: bytes
    twin: bytes | None = None
    status: int = 200
    code: str | None = None
    apart: float = 1e-3


def png(photo: Image.Image, **options: object) -> bytes:
    return encoded(photo, "PNG", **options)


def turned(orientation: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    way = TURNS[orientation]
    options = {"quality": 99, "subsampling": 0} if format == "JPEG" else {}
    return encoded(PHOTO.transpose(way) if way is not None else PHOTO, format, exif=exif, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def refused(data: bytes, code: str = "not_an_image", status: int = 400) -> Awkward:
    return Awkward(data, None, status, code)


def sixteen_bits() -> Awkward:
    grey = PHOTO.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return Awkward(png(deep), png(grey.convert("RGB")))


def animated(format: str) -> Awkward:
    other = draw_photo("cat", 8, PHOTO.size)
    buffer = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    PHOTO.save(buffer, format, save_all=True, append_images=[other], duration=100, **options)
    single = io.BytesIO()
    PHOTO.save(single, format, **options)
    return Awkward(buffer.getvalue(), single.getvalue(), apart=5e-2)  # a palette for two frames is another palette


def transparent() -> Awkward:
    mask = Image.new("L", PHOTO.size, 255)
    mask.paste(0, (0, 0, 60, 90))
    see_through = PHOTO.convert("RGBA")
    see_through.putalpha(mask)
    white = PHOTO.copy()
    white.paste((255, 255, 255), (0, 0, 60, 90))
    return Awkward(png(see_through), png(white))


def cases() -> dict[str, Awkward]:
    """Return every case by its name."""
    jpeg = encoded(PHOTO, quality=95)
    found: dict[str, Awkward] = {}
    for orientation in range(1, 9):
        found[f"PNG held {orientation}"] = Awkward(turned(orientation, "PNG"), png(PHOTO))
        found[f"JPEG held {orientation}"] = Awkward(turned(orientation, "JPEG"), turned(1, "JPEG"), apart=1e-1)
    modes: dict[str, Callable[[], Awkward]] = {
        "CMYK": lambda: Awkward(encoded(PHOTO.convert("CMYK"), quality=100), png(PHOTO), apart=5e-2),
        "grey": lambda: Awkward(png(PHOTO.convert("L")), png(PHOTO.convert("L").convert("RGB"))),
        "palette": lambda: Awkward(png(PHOTO.quantize(64)), png(PHOTO.quantize(64).convert("RGB"))),
        "grey with alpha": lambda: Awkward(png(PHOTO.convert("LA")), png(PHOTO.convert("L").convert("RGB"))),
        "half transparent": transparent,
        "one bit": lambda: Awkward(png(PHOTO.convert("1")), png(PHOTO.convert("1").convert("RGB"))),
        "16 bits": sixteen_bits,
        "animated GIF": lambda: animated("GIF"),
        "animated WebP": lambda: animated("WEBP"),
        "progressive": lambda: Awkward(encoded(PHOTO, quality=95, progressive=True), jpeg),
        "HEIC": lambda: Awkward(encoded(PHOTO, "HEIF", quality=-1), png(PHOTO), apart=5e-2),
        "AVIF": lambda: Awkward(encoded(PHOTO, "AVIF", quality=100), png(PHOTO), apart=5e-2),
        "lossless WebP": lambda: Awkward(encoded(PHOTO, "WEBP", lossless=True), png(PHOTO)),
        "TIFF": lambda: Awkward(encoded(PHOTO, "TIFF"), png(PHOTO)),
        "BMP": lambda: Awkward(encoded(PHOTO, "BMP"), png(PHOTO)),
        "wrong damaged profile": lambda: Awkward(png(PHOTO, icc_profile=b"no profile"), png(PHOTO)),
        "rubbish after the end": lambda: Awkward(jpeg + b"rubbish" * 100, jpeg),
        "1x1": lambda: Awkward(png(Image.new("RGB", (1, 1), "red")), png(Image.new("RGB", (160, 160), "red"))),
        "1x20000": lambda: Awkward(png(Image.new("RGB", (1, 20_000), "blue")), png(Image.new("RGB", (160, 160), "blue"))),
        "20000x1": lambda: Awkward(png(Image.new("RGB", (20_000, 1), "blue")), png(Image.new("RGB", (160, 160), "blue"))),
        "24 megapixels": lambda: Awkward(
            encoded(Image.new("RGB", (6000, 4000), (90, 120, 30)), quality=50),
            png(Image.new("RGB", (160, 160), (90, 120, 30))),
            apart=6e-2,  # one flat colour, a level apart: far from anything learned, where int8 steps are large
        ),
    }
    found |= {name: make() for name, make in modes.items()}
    for tenth in range(1, 10):
        found[f"JPEG cut at {tenth}0 %"] = refused(jpeg[: len(jpeg) * tenth // 10])
    bomb = png_of(30_000, 30_000, b"\0" * 1000)
    text_bomb = png_of(1, 1, b"\0" * 4, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 200_000_000, 9)))
    found |= {
        "bomb of pixels": refused(bomb, "too_many_pixels", 422),
        "bomb of text": refused(text_bomb),
        "PNG with damaged data": refused(png_of(64, 64, b"\0" * 100)),
        "PNG of width 0": refused(png_of(0, 10, b"")),
        "text": refused(b"I am a cat"),
        "HTML": refused(b"<!doctype html><img src=x>"),
        "SVG": refused(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "PDF": refused(b"%PDF-1.7\n"),
        "PostScript": refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "zeros": refused(bytes(5000)),
        "JPEG's first bytes only": refused(jpeg[:20]),
    }
    return found
