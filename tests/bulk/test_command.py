"""What the command says when it cannot do what it was asked, and how it shows how far it is."""

import io
import re
import sys
from pathlib import Path

import pytest

from bulk import cluster, progress
from bulk.errors import BulkError
from bulk.progress import Progress, duration
from operate import bulk_report, page
from scripts import score_many


def ended(*argv: str) -> int:
    with pytest.raises(SystemExit) as exit:
        score_many.main(list(argv))
    assert isinstance(exit.value.code, int)
    return exit.value.code


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BulkError, match=r"Ray is not installed here .*; `make setup-bulk` installs it"):
        cluster.load_ray(alone=True)


def test_what_is_wrong_is_told_in_one_line_with_exit_code_2(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "photos"
    empty.mkdir()
    (empty / "notes.txt").write_text("no photo")
    named = ("--output", str(tmp_path / "output"), "--archive", str(archive))
    for argv, told in (
        ([str(tmp_path / "absent"), *named], f"error: there is nothing at {tmp_path / 'absent'}\n"),
        ([str(empty), *named], f"error: no photo in {empty}; 1 other files are there\n"),
        ([str(empty), *named[:2], "--model-store", str(tmp_path)], f"error: no archive (*.mar) in {tmp_path}; `make archive` builds one; or name an archive with --archive\n"),
        ([str(empty), *named[:2], "--model-store", str(archive.parent), "--model", "birds"], f"error: {archive.parent} has no model birds, but petclf; choose with --model or --archive\n"),
    ):  # fmt: skip
        assert ended(*argv) == 2
        assert capsys.readouterr().err == told


def test_the_archive_is_the_one_that_is_live(archive: Path) -> None:
    assert score_many.live_archive(archive.parent, "petclf") == archive


def test_without_a_terminal_there_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    shown = Progress(1000, 200, file)
    for _ in range(4):
        now[0] += 6
        shown.add(100, 1)
    shown.close()
    assert file.getvalue().splitlines() == [
        "400 of 1,000 photos (40.0%), 2 refused, 17 a second, 36 s left",
        "600 of 1,000 photos (60.0%), 4 refused, 17 a second, 24 s left",
    ]


def test_on_a_terminal_there_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    shown = Progress(1000, 200, file)
    shown.add(300, 2)
    shown.close()
    assert "500/1000" in file.getvalue()


def test_times_are_written_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599.6, 3660, 360_000)] == [
        "0 s", "59 s", "1 min 01 s", "1 h 00 min", "1 h 01 min", "100 h 00 min",
    ]  # fmt: skip


def test_the_report_escapes_what_strangers_called_their_photos() -> None:
    found = {
        "plan": {"source": "photos", "model": "petclf", "version": "2.0.0", "archive": "0" * 64, "left_out": 1},
        "photos": 3, "answered": 1, "refused": {"not_an_image": 2}, "labels": {"cat": 1}, "unsure": {}, "confidence": [0, 1],
        "forms": {"int8": 3}, "shown": [{"path": "<b>.jpg", "error_code": "not_an_image", "error": "it is none"}],
        "run": {"photos": 3, "found": 0, "seconds": 2.0, "worker_seconds": 3.0},
    }  # fmt: skip
    report = bulk_report.rendered(found)
    assert "&lt;b&gt;.jpg" in report
    assert "<b>.jpg" not in report
    assert page.table(["confidence", "photos"], [["0.50 to 1.00", "1"]]) in report
    assert bulk_report.told(found) == "3 photos: 1 answered (1 cat), 0 of them unsure\nrefused, not_an_image: 2"


def test_a_workers_failure_is_reported_in_one_line() -> None:
    def fail(error: Exception) -> str:
        def finish(_job: object, _part: int) -> dict[str, object]:
            raise error

        report = cluster.reported(finish, None, 7)  # type: ignore[arg-type]
        assert (report["part"], report["photos"]) == (7, 0)
        return str(report["failure"])

    assert fail(BulkError("no model\nand more")) == "no model"
    assert fail(OSError(28, "No space left on device")) == "[Errno 28] No space left on device"
    assert re.fullmatch(r"ZeroDivisionError in test_command\.py, line \d+: by zero", fail(ZeroDivisionError("by zero")))
