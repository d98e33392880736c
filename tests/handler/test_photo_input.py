"""One photo in, its upright RGB pixels out, or one clear refusal."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from handler.golden import COUNT, golden_photos
from handler.photo_input import MAX_PIXELS, InvalidPhoto, decode_photo
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


def test_a_large_jpeg_read_in_draft_mode_shows_the_same() -> None:
    large = draw_photo("cat", 5, (1600, 1200))

    assert difference(decode_photo(encoded(large, quality=95), 64), decode_photo(encoded(large, "PNG"), 64)) < 3


def test_golden_photos_are_the_same_numbers_everywhere() -> None:
    photos = golden_photos(64)

    assert (photos.shape, photos.dtype) == ((COUNT, 3, 64, 64), torch.uint8)
    assert [int(photo.long().sum()) for photo in photos] == GOLDEN_SUMS


GOLDEN_SUMS = [1548288, 1462599, 1548288]


def test_statistics_tell_what_a_photo_is_like() -> None:
    black, white = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    stripes = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    stripes[:, :, :, 2::4] = 255
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255

    numbers = {name: value.tolist() for name, value in photo_statistics(torch.cat([black, white, stripes, red])).items()}

    assert numbers["brightness"] == pytest.approx([0, 1, 0.5, 1 / 3])
    assert numbers["sharpness"] == pytest.approx([0, 0, 1, 0])
    assert numbers["colourfulness"] == pytest.approx([0, 0, 0, 1])
    assert numbers["contrast"] == pytest.approx([0, 0, 0.5164, 0], abs=1e-4)
