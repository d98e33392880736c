"""Bytes of one photo -> upright RGB pixels: the only place that knows how, for training and serving alike."""

import io
import math
import time
import warnings
from functools import lru_cache

import numpy as np
import pillow_heif
import torch
from PIL import AvifImagePlugin, Image, ImageCms, ImageOps
from torch.nn import functional

from handler.limits import MAX_PIXELS

MAX_PROFILE = 65_536  # bytes of a colour profile; a camera's has a few thousand
FEW_PIXELS = 1_000_000  # up to here torch makes the square: three times as fast as Pillow, but from a copy of all pixels
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

Image.init()  # opening by format knows only formats that are loaded
pillow_heif.register_heif_opener(decode_threads=1)  # a worker's share is one core; the others are other workers'
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
Image.MAX_IMAGE_PIXELS = None  # our own limit below is checked before a pixel is decoded, with a clear answer


class InvalidPhoto(ValueError):  # noqa: N818  (it says what is wrong better than PhotoError)
    """These bytes are refused; `code` is for programs, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TimedBytes(io.BytesIO):
    """A photo's bytes until a deadline: most decoders come for more of them again and again, and can be stopped there."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self.deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self.deadline:
            raise InvalidPhoto("out_of_time", "the photo took too long to read; send it again, or a smaller one")
        return super().read(size)


def decode_photo(data: bytes, size: int) -> torch.Tensor:
    """Return the photo upright, in RGB, squashed to a square: uint8 [3, size, size]."""
    return to_square(open_photo(data), size)


def to_square(photo: Image.Image, size: int) -> torch.Tensor:
    """Return an opened photo as the network takes it."""
    profile = photo.info.get("icc_profile") if photo.mode in ("RGB", "RGBA") else None
    try:
        photo.draft("RGB", (size, size))  # JPEG only: skips detail that the resize would drop
        pixels = squashed(to_rgb(photo), size)
    except InvalidPhoto:
        raise
    except Exception as error:  # strangers feed this decoder; Pillow raises a dozen types
        raise InvalidPhoto("not_an_image", "the photo is damaged or cut short") from error
    if profile and len(profile) <= MAX_PROFILE and (transform := to_srgb(profile)):
        pixels = np.array(transform.apply(Image.fromarray(pixels)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def squashed(photo: Image.Image, size: int) -> np.ndarray:
    """Return an RGB photo as a square [size, size, 3]; both ways compute the same, but for the last bit's rounding."""
    if photo.width * photo.height > FEW_PIXELS:
        return np.array(photo.resize((size, size), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def decode_preview(data: bytes, longest: int) -> Image.Image:
    """Return the photo upright, in RGB, its sides in proportion: for people to look at."""
    photo = open_photo(data)
    try:
        photo.draft("RGB", (longest, longest))
        upright = to_rgb(photo)
        upright.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    except Exception as error:  # strangers feed this decoder; Pillow raises a dozen types
        raise InvalidPhoto("not_an_image", "the photo is damaged or cut short") from error
    return upright


def open_photo(data: bytes, deadline: float = math.inf) -> Image.Image:
    """Return the opened photo, its header read and judged, no pixel decoded yet; `deadline` is for decoding it, by time.monotonic()."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF is no reason to write to the log
            photo = Image.open(TimedBytes(data, deadline), formats=FORMATS)
    except InvalidPhoto:
        raise
    except Exception as error:  # strangers feed this decoder; Pillow raises a dozen types
        raise InvalidPhoto("not_an_image", "not a readable image; send JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC") from error
    if photo.width * photo.height > MAX_PIXELS:
        raise InvalidPhoto("too_many_pixels", f"the photo is {photo.width}x{photo.height}; the limit is {MAX_PIXELS:,} pixels")
    return photo


def to_rgb(photo: Image.Image) -> Image.Image:
    """Return the photo as the camera's holder saw it: turned upright, alpha on white, RGB."""
    upright = ImageOps.exif_transpose(photo)
    if upright.mode == "I" or upright.mode.startswith("I;16"):  # 16 bits: Pillow would cut them off, not scale them
        return Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return upright.convert("RGB")


@lru_cache(maxsize=16)
def to_srgb(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return how colours of this profile become sRGB's, which the network learned; nothing for sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None  # a damaged profile costs its colours' last per cent, not the answer
