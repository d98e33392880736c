"""One photo in, its upright RGB pixels out, or one clear refusal."""

import io
import struct
import time

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import AvifImagePlugin, Image, ImageCms

from benchmarks.decoding import run_lengths
from handler import photo_input
from handler.golden import COUNT, golden_photos
from handler.limits import MAX_PIXELS
from handler.photo_input import InvalidPhoto, decode_photo, open_photo, squashed, to_square
from handler.statistics import photo_statistics
from tests.drawing import draw_photo, encoded

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
PHOTO = draw_photo("cat", 3, (96, 64))


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.float() - second.float()).abs().mean())


@pytest.mark.parametrize("orientation", TURNS)
def test_however_the_camera_was_held_the_photo_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(PHOTO.transpose(TURNS[orientation]), "PNG", exif=exif)

    assert torch.equal(decode_photo(turned, 64), decode_photo(encoded(PHOTO, "PNG"), 64))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_format_gives_about_the_same_pixels(format: str) -> None:
    assert difference(decode_photo(encoded(PHOTO, format), 64), decode_photo(encoded(PHOTO, "PNG"), 64)) < 16


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "YCbCr", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        photo = Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257)
    else:
        photo = PHOTO.convert(mode)
    format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"

    pixels = decode_photo(encoded(photo, format), 64)

    grey = decode_photo(encoded(PHOTO.convert("L"), "PNG"), 64)
    assert (pixels.shape, pixels.dtype) == ((3, 64, 64), torch.uint8)
    limit = 90 if mode == "1" else 30
    assert difference(pixels.float().mean(0), grey.float().mean(0)) < limit


def test_what_is_transparent_is_white() -> None:
    clear = encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG")

    assert decode_photo(clear, 64).unique().tolist() == [255]


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = io.BytesIO()
    PHOTO.save(frames, "GIF", save_all=True, append_images=[draw_photo("dog", 1, (96, 64))])

    assert torch.equal(decode_photo(frames.getvalue(), 64), decode_photo(encoded(PHOTO, "GIF"), 64))


def test_tiny_and_long_photos_fill_the_square() -> None:
    for size in ((1, 1), (1, 2000), (2000, 1)):
        assert decode_photo(encoded(Image.new("RGB", size, "red"), "PNG"), 64).shape == (3, 64, 64)


@pytest.mark.parametrize(
    "data", [b"", b"no photo", b"GIF89a", b"\xff\xd8\xff\xe0", encoded(PHOTO)[:700], encoded(PHOTO, "PNG")[:-40]]
)
def test_what_is_no_whole_photo_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidPhoto) as refused:
        decode_photo(data, 64)

    assert refused.value.code == "not_an_image"


def test_formats_that_nobody_asked_for_are_refused() -> None:
    for format in ("PPM", "TGA", "ICO", "EPS"):
        with pytest.raises(InvalidPhoto, match="not a readable image; send JPEG"):
            decode_photo(encoded(PHOTO, format), 64)


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    bomb = encoded(Image.new("1", (side, side)), "PNG")

    with pytest.raises(InvalidPhoto, match=f"the photo is {side}x{side}; the limit is 50,000,000 pixels") as refused:
        decode_photo(bomb, 64)
    assert refused.value.code == "too_many_pixels"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_photo_that_is_not_read_in_time_is_stopped_while_it_is_decoded(format: str) -> None:
    opened = open_photo(encoded(PHOTO, format), time.monotonic() + 60)
    opened.fp.deadline = 0.0  # type: ignore[attr-defined]

    with pytest.raises(InvalidPhoto, match="the photo took too long to read") as refused:
        to_square(opened, 64)
    assert refused.value.code == "out_of_time"


def test_a_photo_whose_header_comes_too_late_is_stopped_as_well() -> None:
    with pytest.raises(InvalidPhoto) as refused:
        open_photo(encoded(PHOTO), time.monotonic() - 1)
    assert refused.value.code == "out_of_time"


def test_minutes_of_run_lengths_are_stopped_after_the_time_that_there_is() -> None:
    """Pillow reads them in Python, so five million take seconds, however small the photo that they make."""
    head = run_lengths(Image.new("RGB", (16, 16)))[:1078]
    opened = open_photo(head + b"\0\0" * 4_900_000, time.monotonic() + 0.2)

    with pytest.raises(InvalidPhoto) as refused:
        to_square(opened, 64)
    assert refused.value.code == "out_of_time"


def test_no_decoder_takes_the_cores_of_other_workers() -> None:
    assert (AvifImagePlugin.DEFAULT_MAX_THREADS, pillow_heif.options.DECODE_THREADS) == (1, 1)


def test_a_large_jpeg_read_in_draft_mode_shows_the_same() -> None:
    large = draw_photo("cat", 5, (1600, 1200))

    assert difference(decode_photo(encoded(large, quality=95), 64), decode_photo(encoded(large, "PNG"), 64)) < 3


@pytest.mark.parametrize("size", [(320, 240), (90, 700), (17, 5)])
def test_small_and_large_photos_are_squashed_alike(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    photo = draw_photo("cat", 3, size)
    by_torch = squashed(photo, 160).astype(int)

    monkeypatch.setattr(photo_input, "FEW_PIXELS", 0)
    by_pillow = squashed(photo, 160).astype(int)

    assert by_torch.shape == by_pillow.shape == (160, 160, 3)
    assert abs(by_torch - by_pillow).max() <= 1


def test_golden_photos_are_the_same_numbers_everywhere() -> None:
    photos = golden_photos(64)

    assert (photos.shape, photos.dtype) == ((COUNT, 3, 64, 64), torch.uint8)
    assert [int(photo.long().sum()) for photo in photos] == GOLDEN_SUMS


GOLDEN_SUMS = [1548288, 1462599, 1548288]


def test_statistics_tell_what_a_photo_is_like() -> None:
    black, white = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[:, :, :, 2::4] = 255
    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 255

    numbers = {name: value.tolist() for name, value in photo_statistics(torch.cat([black, white, stripes, red])).items()}

    assert numbers["brightness"] == pytest.approx([0, 1, 0.5, 1 / 3])
    assert numbers["sharpness"] == pytest.approx([0, 0, 1, 0])
    assert numbers["colourfulness"] == pytest.approx([0, 0, 0, 1])
    assert numbers["contrast"] == pytest.approx([0, 0, 0.5040, 0], abs=1e-4)


def test_colours_of_a_wide_profile_are_those_of_their_srgb_twin() -> None:
    """A camera that writes wide colours stores the same red as smaller numbers."""
    along = np.tile(np.arange(96, dtype=np.uint8) * 2 + 40, (96, 1))
    twin = Image.fromarray(np.stack([along, along.T, 255 - along], 2))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), wide_profile(), "RGB", "RGB")
    wide = ImageCms.applyTransform(twin, transform)
    assert wide is not None
    wide.info.clear()  # or it would be saved with its profile anyway
    profile = wide_profile().tobytes()

    with_profile, without = encoded(wide, "PNG", icc_profile=profile), encoded(wide, "PNG")

    expected = decode_photo(encoded(twin, "PNG"), 64)
    assert difference(decode_photo(with_profile, 64), expected) < 1.5
    assert difference(decode_photo(without, 64), expected) > 3


@pytest.mark.parametrize("profile", [b"no profile", b"x" * 100_000])
def test_a_damaged_profile_costs_its_colours_not_the_answer(profile: bytes) -> None:
    damaged = encoded(PHOTO, "PNG", icc_profile=profile)
    assert torch.equal(decode_photo(damaged, 64), decode_photo(encoded(PHOTO, "PNG"), 64))


def wide_profile() -> ImageCms.ImageCmsProfile:
    """A profile with the primaries of Adobe RGB (1998) and a gamma of 2.2, written by hand."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(s15, values))

    text = b"wide"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags = {
        b"desc": description, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087), b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    header = struct.pack(">I4sI4s4s4s", start + len(data), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + s15(0.9642) + s15(1.0) + s15(0.8249) + bytes(48)
    return ImageCms.ImageCmsProfile(io.BytesIO(header + table + data))
