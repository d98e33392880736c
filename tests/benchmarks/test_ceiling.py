"""What the cores can give at most, on drawn photos: that it is measured, not how much it is."""

import time
from pathlib import Path

from benchmarks.ceiling import Ceiling
from benchmarks.load import read_photos
from tests.drawing import draw_photo, encoded


def drawn(folder: Path) -> list[bytes]:
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(encoded(draw_photo("cat", index, (64, 48)), quality=90))
    return read_photos(folder)


def test_what_is_asked_is_answered_as_fast_as_it_goes_or_at_a_rate_by_all_processes(tmp_path: Path) -> None:
    with Ceiling(drawn(tmp_path), batch=4, processes=2) as ceiling:
        at_most = ceiling.at_most(batch=2, seconds=0.5)
        at_rate = ceiling.at_rate(40, seconds=0.5)

    assert at_most.pop("rate") > 0
    assert at_most == {"processes": 2, "batch": 2}
    times = at_rate.pop("answered_ms")
    assert 0 < times["p50"] <= times["p99"]
    assert at_rate == {"rate": 40.0, "statuses": {"200": 20}, "batch": 4, "processes": 2}


def test_a_process_that_comes_late_is_waited_for_and_never_left_waiting(tmp_path: Path) -> None:
    with Ceiling(drawn(tmp_path), batch=4, processes=2) as ceiling:
        ceiling.pool.apply_async(time.sleep, (2,))  # one process is busy for longer than photos come
        at_rate = ceiling.at_rate(40, seconds=0.5)

    assert at_rate["statuses"] == {"200": 20}
