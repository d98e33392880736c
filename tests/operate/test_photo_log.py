"""Every line of the prediction log is read once, whatever becomes of its files."""

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from handler.batch import Item
from handler.classifier import Judgement
from handler.prediction_log import PredictionLog
from handler.recent import Recent
from handler.recorder import Recorder
from handler.telemetry import Telemetry
from operate.photo_log import LogError, Photo, PhotoLog, new_photos, read_photo
from tests.operate.lines import as_text, entries, photos, written

FACTS = {
    "format": "JPEG", "width": 640, "height": 480, "bytes": 30_000,
    "brightness": 0.5, "contrast": 0.2, "sharpness": 0.04, "colourfulness": 0.1,
}  # fmt: skip


def test_a_line_that_the_handler_writes_is_read(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path / "log"), 1_000_000)
    recorder = Recorder(Telemetry(SimpleNamespace(), "2.0.0"), log, Recent(tmp_path / "ring", ["cat", "dog"]), {}, "2.0.0")
    item = Item("id", b"")
    item.judgement = Judgement("dog", 0.87654321, {"cat": 0.12345679, "dog": 0.87654321}, 0.5, "low_confidence")
    log.write([recorder.log_entry(datetime(2026, 11, 20, tzinfo=timezone.utc), item, FACTS)])

    assert [*PhotoLog(tmp_path / "log").new_photos()] == [
        Photo(1_795_132_800.0, "2.0.0", (0.876543, 0.5, 0.5, 0.2, 0.04, 0.1, 640, 480, 30_000), ("dog", "low_confidence", "JPEG"))
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"starting TorchServe ...\n", b"{}\n", b"[1]\n", b"null\n", b"\xff\xfe\n", b"\n", b"[" * 100_000 + b"\n",
        as_text(entries(1, confidence="high")).encode(), as_text(entries(1, confidence=float("nan"))).encode(),
        as_text(entries(1, time="yesterday")).encode(), as_text(entries(1, version=2)).encode(),
        as_text(entries(1, label=None)).encode(), as_text(entries(1, brightness=None)).encode(),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_broken_line_is_none(line: bytes) -> None:
    assert read_photo(line) is None


def test_rotated_files_are_read_oldest_first_and_broken_lines_are_counted(tmp_path: Path) -> None:
    made = entries(12)
    written(tmp_path / "log.10", made[:2])
    written(tmp_path / "log.2", made[2:5])
    (tmp_path / "log.1").write_text(as_text(made[5:6]) + "broken\n" + as_text(made[6:9]))
    written(tmp_path / "log", made[9:])
    (tmp_path / "log.gz").write_text("something else\n")
    (tmp_path / "logs.1").write_text("something else\n")
    log = PhotoLog(tmp_path / "log")

    assert ([*log.new_photos()], log.broken) == (photos(made), 1)


def test_reading_again_yields_what_was_appended_also_when_the_files_were_rotated(tmp_path: Path) -> None:
    made, path = entries(40), tmp_path / "log"
    keeps = PredictionLog(str(path), len(as_text(made[:10])))
    log, seen = PhotoLog(path), []
    for start in range(0, 40, 4):
        keeps.write(made[start : start + 4])
        if start % 12 == 0:  # the files were moved up to once since the last time
            seen.append([*log.new_photos()])

    assert len([*tmp_path.iterdir()]) > 3
    assert [photo for some in seen for photo in some] == photos(made)
    assert [*log.new_photos()] == []


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    first, second = entries(2)
    text = as_text([second])
    (tmp_path / "log").write_text(as_text([first]) + text[:50])
    log = PhotoLog(tmp_path / "log")
    assert [*log.new_photos()] == photos([first])
    with (tmp_path / "log").open("a") as file:
        file.write(text[50:])
    assert ([*log.new_photos()], log.broken) == (photos([second]), 0)


def test_an_emptied_log_is_read_from_its_start(tmp_path: Path) -> None:
    path = written(tmp_path / "log", entries(5))
    log = PhotoLog(path)
    assert len([*log.new_photos()]) == 5
    path.write_text(as_text(entries(2, seed=9)))
    assert [*log.new_photos()] == photos(entries(2, seed=9))


def test_logs_of_several_servers_are_joined_by_time(tmp_path: Path) -> None:
    made = entries(30)
    logs = [PhotoLog(written(tmp_path / name, made[start::3])) for start, name in enumerate(("a", "b", "c"))]
    assert [*new_photos(logs)] == photos(made)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=f"no prediction log at {tmp_path}/log; PETCLF_PREDICTION_LOG tells"):
        Counter(PhotoLog(tmp_path / "log").new_photos())
