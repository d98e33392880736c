"""What happens to photos on their way: each corruption is bytes -> bytes, then read as the server reads."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from handler.photo_input import open_photo, to_rgb


def saved(photo: Image.Image, quality: int = 95) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def rotate(photo: Image.Image, degrees: float) -> bytes:
    return saved(photo.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)))


def low_light(photo: Image.Image) -> bytes:
    """A quarter of the light, and the noise that comes with it."""
    random = np.random.default_rng(photo.width * 7919 + photo.height)
    dark = np.asarray(photo, dtype=np.float32) * 0.25
    return saved(Image.fromarray((dark + random.normal(0, 6, dark.shape)).clip(0, 255).astype(np.uint8)))


def middle(photo: Image.Image, width: float, height: float) -> bytes:
    """Keep only the middle of the photo: these shares of its sides."""
    left, top = photo.width * (1 - width) / 2, photo.height * (1 - height) / 2
    return saved(photo.crop((round(left), round(top), round(photo.width - left), round(photo.height - top))))


CORRUPTIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "rotated 15 degrees": lambda photo: rotate(photo, 15),
    "rotated 30 degrees": lambda photo: rotate(photo, -30),
    "blurred": lambda photo: saved(photo.filter(ImageFilter.GaussianBlur(photo.width / 90))),
    "JPEG quality 30": lambda photo: saved(photo, 30),
    "JPEG quality 20": lambda photo: saved(photo, 20),
    "JPEG quality 10": lambda photo: saved(photo, 10),
    "low light": low_light,
    "grey": lambda photo: saved(ImageOps.grayscale(photo).convert("RGB")),
    "cropped to the middle 60 %": lambda photo: middle(photo, 0.775, 0.775),
    "64 pixels": lambda photo: saved(photo.resize((64, 64), Image.Resampling.BICUBIC)),
    "phone upright 9:16": lambda photo: middle(photo, 9 / 16, 1),
    "phone across 16:9": lambda photo: middle(photo, 1, 9 / 16),
}


def corrupted(data: bytes, name: str) -> bytes:
    """Return the photo after the named corruption."""
    return CORRUPTIONS[name](to_rgb(open_photo(data)))
