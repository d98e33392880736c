"""One whole line a prediction, from all workers; the log rotates, and a full disk costs lines, not answers."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from handler.prediction_log import KEEP, PredictionLog


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_entry_is_a_line(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path / "logs" / "predictions.jsonl"), 10_000)
    assert log.write([{"number": 1, "label": "兎"}, {"number": 2}]) == 0
    assert log.write([{"number": 3}]) == 0
    assert (tmp_path / "logs" / "predictions.jsonl").read_text(
        encoding="utf-8"
    ) == '{"number":1,"label":"兎"}\n{"number":2}\n{"number":3}\n'


def test_without_a_target_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PredictionLog("", 100).write([{"number": 1}]) == 0
    assert list(tmp_path.iterdir()) == []


def test_without_entries_there_is_no_file(tmp_path: Path) -> None:
    assert PredictionLog(str(tmp_path / "log"), 100).write([]) == 0
    assert list(tmp_path.iterdir()) == []


def test_lines_can_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert PredictionLog("stdout", 100).write([{"number": 1}]) == 0
    assert capsys.readouterr().out == '{"number":1}\n'


def test_a_full_log_makes_room_and_only_the_oldest_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = PredictionLog(str(path), 40)  # two lines of 15 bytes, not three
    for number in range(10, 10 + 2 * (KEEP + 2)):
        log.write([{"number": number}])

    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", *(f"log.{number}" for number in range(1, KEEP + 1))]
    assert numbers(path) == [22, 23]
    assert numbers(tmp_path / "log.1") == [20, 21]
    assert numbers(tmp_path / f"log.{KEEP}") == [12, 13]


def write_many(path: str, start: int) -> None:
    log = PredictionLog(path, 20_000)
    for number in range(start, start + 1000):
        log.write([{"number": number, "filler": "x" * 20}])


def test_no_line_is_lost_or_torn_between_workers_while_the_log_rotates(tmp_path: Path) -> None:
    path = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(str(path), start)) for start in (0, 1000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    found = [number for file in tmp_path.iterdir() for number in numbers(file)]
    assert len(found) == len(set(found))
    assert sorted(found) == list(range(2000))  # 2,000 lines of 43 bytes fit into the log and its five predecessors


def test_a_log_moved_by_hand_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = PredictionLog(str(path), 1000)
    log.write([{"number": 1}])
    path.rename(tmp_path / "archive")
    log.write([{"number": 2}])
    assert (numbers(tmp_path / "archive"), numbers(path)) == ([1], [2])


def test_a_log_that_cannot_be_written_is_told_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    log = PredictionLog(str(tmp_path / "file" / "log"), 1000)

    assert [log.write([{"number": 1}, {"number": 2}]), log.write([{"number": 3}])] == [2, 1]
    assert (
        capsys.readouterr().err
        == f"the prediction log {tmp_path}/file/log cannot be written: File exists; answers go on without it\n"
    )


def test_a_full_disk_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = PredictionLog(str(tmp_path / "log"), 1000)
    log.write([{"number": 1}])
    write = os.write
    monkeypatch.setattr("handler.prediction_log.os.write", lambda file, data: write(file, data[:5]))

    assert log.write([{"number": 2}]) == 1

    monkeypatch.undo()
    assert log.write([{"number": 3}]) == 0
    assert numbers(tmp_path / "log") == [1, 3]
    assert "No space left on device" in capsys.readouterr().err
