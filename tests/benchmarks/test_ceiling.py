"""What the cores can give at most, on drawn photos: that it is measured, not how much it is."""

from pathlib import Path

from benchmarks.ceiling import at_most, at_rate
from benchmarks.load import read_photos
from tests.drawing import draw_photo, encoded


def drawn(folder: Path) -> list[bytes]:
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(encoded(draw_photo("cat", index, (64, 48)), quality=90))
    return read_photos(folder)


def test_all_that_is_asked_at_a_rate_is_answered_and_timed(tmp_path: Path) -> None:
    found = at_rate(drawn(tmp_path), batch=4, seconds=0.5, processes=2, rate=40)
    assert (found["rate"], found["statuses"], found["batch"], found["processes"]) == (40.0, {"200": 20}, 4, 2)
    assert 0 < found["answered_ms"]["p50"] <= found["answered_ms"]["p99"]


def test_as_fast_as_it_goes_all_processes_count(tmp_path: Path) -> None:
    found = at_most(drawn(tmp_path), batch=2, seconds=0.5, processes=2)
    assert found.pop("rate") > 0
    assert found == {"processes": 2, "batch": 2}
