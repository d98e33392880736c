"""A request's cost is told before a pixel is decoded, and decides who of a batch is let in."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.decoding import CASES, SIDE, dimensions, many_scans, run_lengths
from handler import cost
from handler.limits import DEAR_SECONDS, MAX_NUMBERS, MOST_SECONDS, SHARED_SECONDS
from handler.photo_input import FORMATS, InvalidPhoto, open_photo
from handler.refusal import Refusal
from tests.drawing import draw_photo, encoded

PHOTO = draw_photo("cat", 1, (400, 300))
CHEAP, DEAR = DEAR_SECONDS / 2, 0.33 * MOST_SECONDS


def yes() -> bool:
    return True


def no() -> bool:
    return False


def seconds(data: bytes) -> float:
    return cost.of_photo(open_photo(data), data, SIDE)


def header(width: int, height: int, format: str, **options: object) -> tuple[Image.Image, bytes]:
    """A small photo that claims to be large: what a decoder would find out late."""
    data = encoded(PHOTO.resize((64, 48)), format, **options)
    photo = open_photo(data)
    photo._size = (width, height)  # type: ignore[attr-defined]
    return photo, data


def code_of(width: int, height: int, format: str, **options: object) -> str:
    try:
        cost.of_photo(*header(width, height, format, **options), SIDE)
    except Refusal as refused:
        return refused.code
    return "let in"


def documented() -> list[tuple[str, str, str]]:
    """The rows of the table of limits in docs/api.md."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(
        r"^\| (\w[^|]*) \| ([\d.]+ megapixels in [\d.]+ MB) \| ([\d.]+ megapixels in [\d.]+ MB) \|$", text, re.MULTILINE
    )


def seconds_of(format: str, size: str) -> float:
    megapixels, megabytes = (float(number) for number in re.findall(r"[\d.]+", size))
    name, _, kind = format.partition(", ")
    photo, data = header(*dimensions(megapixels), name.upper().replace("HEIC", "HEIF"), progressive=bool(kind))
    return cost.of_photo(photo, data + bytes(int(megabytes * 1e6) - len(data)), SIDE)


@pytest.mark.parametrize(("format", "largest", "dear"), documented())
def test_the_documented_sizes_are_let_in_and_dear(format: str, largest: str, dear: str) -> None:
    assert DEAR_SECONDS < seconds_of(format, dear) < 1.3 * DEAR_SECONDS
    assert seconds_of(format, largest) < MOST_SECONDS + cost.EACH_PHOTO


def test_every_format_but_bmp_is_documented() -> None:
    named = {format.split(",")[0].upper().replace("HEIC", "HEIF") for format, _, _ in documented()}
    assert named == set(FORMATS) - {"BMP"}


def test_every_format_has_its_cost() -> None:
    assert set(cost.NANOSECONDS) == {*FORMATS, "MPO"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_small_photo_is_cheap_however_it_is_written(case: object) -> None:
    data = case.encode(case.draw((320, 240)))  # type: ignore[attr-defined]
    limit = MOST_SECONDS if "scans" in case.name or "runs" in case.name else DEAR_SECONDS  # type: ignore[attr-defined]
    assert seconds(data) < limit


@pytest.mark.parametrize(
    ("width", "height", "format", "options", "outcome"),
    [
        (4032, 3024, "JPEG", {}, "let in"),
        (4032, 3024, "HEIF", {}, "let in"),
        (8160, 6120, "JPEG", {}, "let in"),
        (5700, 4280, "JPEG", {"progressive": True}, "let in"),
        (3840, 2160, "PNG", {}, "let in"),
        (8160, 6120, "WEBP", {}, "too_many_pixels"),
        (5700, 4280, "HEIF", {}, "too_many_pixels"),
        (7000, 5000, "PNG", {}, "let in"),
    ],
)
def test_which_photos_are_let_in(width: int, height: int, format: str, options: dict, outcome: str) -> None:
    assert code_of(width, height, format, **options) == outcome


def test_a_cameras_jpeg_is_cheap_and_what_takes_long_is_dear() -> None:
    assert cost.of_photo(*header(4032, 3024, "JPEG"), SIDE) < DEAR_SECONDS
    for format in ("PNG", "WEBP", "AVIF", "HEIF"):
        assert cost.of_photo(*header(4032, 3024, format), SIDE) > DEAR_SECONDS


def test_a_photo_that_takes_too_long_is_told_its_limit() -> None:
    photo, data = header(6000, 5000, "HEIF")
    most = int((MOST_SECONDS * 1e9 - len(data) * 90 - 11_000 * cost.A_SIDE) / 55)
    with pytest.raises(Refusal) as refused:
        cost.of_photo(photo, data, SIDE)
    assert (refused.value.code, refused.value.message) == (
        "too_many_pixels",
        f"the photo is 6000x5000; the limit is {most:,} pixels for a HEIF of this kind and of {len(data):,} bytes",
    )


def test_every_scan_of_a_jpeg_counts() -> None:
    progressive = encoded(PHOTO, progressive=True, quality=50)
    assert seconds(many_scans(PHOTO)) > seconds(progressive) + 80 * PHOTO.width * PHOTO.height * 1e-9
    large = many_scans(Image.new("RGB", (4000, 3000)))
    with pytest.raises(Refusal, match="the photo is 4000x3000; the limit is"):
        seconds(large)


def test_a_phones_jpeg_is_cheap_whatever_else_its_file_holds() -> None:
    """A thumbnail in its EXIF data, or a second photo behind the first: Pillow calls such a file MPO."""
    several = encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO])
    photo = open_photo(several)
    photo._size = (4032, 3024)  # type: ignore[attr-defined]
    assert photo.format == "MPO"
    assert cost.of_photo(photo, several + bytes(4_000_000), SIDE) < DEAR_SECONDS


def test_a_long_strip_costs_what_decoding_it_in_full_costs() -> None:
    """Pillow makes a JPEG smaller while it decodes it, but not smaller than the square in either direction."""
    strip, usual = (cost.of_photo(*header(*size, "JPEG"), SIDE) for size in ((65_500, 319), (5222, 4000)))
    assert usual < DEAR_SECONDS < 0.38 < strip
    assert cost.of_photo(*header(10_000_000, 1, "PNG"), SIDE) > 0.5


def test_a_bmp_in_runs_costs_what_python_takes_for_it() -> None:
    assert seconds(run_lengths(PHOTO)) > 50 * seconds(encoded(PHOTO, "BMP")) - cost.EACH_PHOTO * 50


def test_transparency_costs_extra() -> None:
    opaque, clear = encoded(PHOTO, "PNG"), encoded(PHOTO.convert("RGBA"), "PNG")
    assert seconds(clear) - seconds(opaque) > 0.9 * PHOTO.width * PHOTO.height * cost.ALPHA * 1e-9


def test_json_costs_by_its_bytes_and_by_what_it_holds() -> None:
    text = json.dumps({"image": base64.b64encode(bytes(300_000)).decode()}).encode()
    pixels = json.dumps({"pixels": np.zeros((200, 200, 3), int).tolist()}).encode()
    assert cost.of_body(text) == pytest.approx(400_013 * cost.A_BYTE, rel=0.01)
    assert cost.of_body(pixels) == pytest.approx(len(pixels) * cost.A_BYTE + 4 * 200 * 200 * cost.A_NUMBER, rel=0.01)


@pytest.mark.parametrize("body", [b"1," * MAX_NUMBERS, b"[]," * MAX_NUMBERS, b"[" * MAX_NUMBERS, b"{" * MAX_NUMBERS])
def test_json_of_too_many_numbers_or_lists_is_refused_unread(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        cost.of_body(b"[" + body)
    assert (refused.value.code, refused.value.status) == ("too_large", 422)


def test_cheap_requests_are_all_let_in_while_there_is_time() -> None:
    assert cost.turned_away([SHARED_SECONDS / 8] * 8, no) == [False] * 8


def test_the_cheapest_are_let_in_first() -> None:
    almost_dear = 0.9 * DEAR_SECONDS
    assert cost.turned_away([almost_dear] * 5 + [CHEAP / 2], no) == [False, False, False, True, True, False]


def test_a_dear_request_gives_way_to_a_cheap_one_wherever_it_stands() -> None:
    assert cost.turned_away([DEAR, CHEAP, DEAR], yes) == [True, False, True]
    assert cost.turned_away([1.01 * DEAR_SECONDS, CHEAP], yes) == [True, False]


def test_dear_requests_alone_are_let_in_until_the_batch_is_full() -> None:
    assert cost.turned_away([DEAR] * 5, yes) == [False, False, False, True, True]
    assert cost.turned_away([DEAR, MOST_SECONDS, DEAR, DEAR], yes) == [False, True, False, False]


def test_one_dear_request_is_let_in_however_dear() -> None:
    assert cost.turned_away([2 * MOST_SECONDS, 3 * MOST_SECONDS], yes) == [False, True]


def test_dear_requests_are_turned_away_while_another_worker_reads_such() -> None:
    assert cost.turned_away([DEAR, DEAR], no) == [True, True]


def test_nobody_asks_for_a_lane_without_need() -> None:
    def fail() -> bool:
        raise AssertionError("nothing dear may be read in this batch")

    assert cost.turned_away([], fail) == []
    assert cost.turned_away([CHEAP], fail) == [False]
    assert cost.turned_away([CHEAP, DEAR], fail) == [False, True]


def test_a_photo_of_training_is_not_judged_by_what_it_costs() -> None:
    """Training reads everything up to the limit that holds for all formats."""
    assert open_photo(encoded(Image.new("LA", (7000, 7000)), "PNG")).size == (7000, 7000)
    with pytest.raises(InvalidPhoto, match="the limit is 50,000,000 pixels"):
        open_photo(encoded(Image.new("1", (7100, 7100)), "PNG"))
