"""A whole run over Ray on this machine, whatever is killed meanwhile."""

import contextlib
import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from bulk.plan import ANSWERS
from tests.conftest import draw_folder

if not find_spec("ray"):
    pytest.skip("Ray is not installed; `make setup-bulk` installs it", allow_module_level=True)

from benchmarks import bulk as bench

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 drawn photos and four files that are called like photos."""
    folder = draw_folder(tmp_path_factory.mktemp("bulk") / "photos", ("cat", "dog"), 60)
    for name, data in (
        ("broken.jpg", b"no photo"),
        ("empty.png", b""),
        ("cat/cut.jpg", (folder / "cat" / "cat.1.jpg").read_bytes()[:300]),
    ):
        (folder / name).write_bytes(data)
    (folder / "dog" / "notes.txt").write_text("no photo")
    (folder / "dog" / "gone.jpg").symlink_to(folder / "dog" / "dog.1.jpg")
    return folder


def command(photos: Path, output: Path, archive: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-W", "ignore", "-m", "scripts.score_many", str(photos), "--output", str(output), "--archive", str(archive),
        "--workers", "2", *options,
    ]  # fmt: skip


def score_many(photos: Path, output: Path, archive: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "fatal"}
    return subprocess.run(
        command(photos, output, archive, *options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env=environment,
    )


@pytest.fixture(scope="module")
def finished(
    photos: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("finished") / "reference"
    result = score_many(photos, output, archive)
    assert result.returncode == 0, result.stderr
    return output, result


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / ANSWERS).to_pylist()
    return rows


def test_every_photo_has_one_row_in_order_with_an_answer_or_the_reason(
    photos: Path, finished: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    rows = rows_of(finished[0])
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*") if path.suffix in (".jpg", ".png"))
    assert [row["path"] for row in rows] == names
    refused = {row["path"]: (row["error_code"], row["error"]) for row in rows if row["error_code"]}
    unreadable = "not a readable image; send JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
    assert refused.pop("empty.png")[0] == "empty_body"
    assert refused == {"broken.jpg": ("not_an_image", unreadable), "cat/cut.jpg": ("not_an_image", unreadable)}
    assert {row["label"] for row in rows if not row["error_code"]} <= {"cat", "dog"}
    assert len({row["archive"] for row in rows}) == 1


def test_the_summary_counts_what_the_rows_say(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, result = finished
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    rows = rows_of(output)
    answered = [row for row in rows if row["label"]]
    assert (summary["photos"], summary["answered"]) == (len(rows), len(answered)) == (124, 121)
    assert summary["refused"] == {"not_an_image": 2, "empty_body": 1}
    assert summary["labels"] == {
        label: sum(row["label"] == label for row in answered) for label in sorted({row["label"] for row in answered})
    }
    assert sum(summary["unsure"].values()) == sum(row["unsure"] for row in answered)
    assert sum(summary["confidence"]) == 121
    assert (summary["run"]["photos"], summary["run"]["found"], summary["plan"]["left_out"]) == (124, 0, 1)
    assert result.stdout.startswith("124 photos: 121 answered (")
    assert "124 photos in 8 parts, by petclf" in result.stderr
    report = (output / "report.html").read_text(encoding="utf-8")
    assert "cat/cut.jpg" in report
    assert "http" not in report.replace("http-equiv", "")


def test_a_finished_run_says_so_without_computing_anything(
    photos: Path, archive: Path, finished: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    output, _ = finished
    before = bench.parts_of(output)
    result = score_many(photos, output, archive, "--json")
    assert result.returncode == 0, result.stderr
    assert "124 are answered already" in result.stderr
    assert json.loads(result.stdout)["run"] | {"seconds": 0} == {"photos": 0, "found": 124, "seconds": 0, "worker_seconds": 0}
    assert bench.parts_of(output) == before


def test_a_run_whose_worker_and_driver_are_killed_ends_with_the_same_bytes(
    photos: Path, archive: Path, finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A killed process loses the part that it worked on, and nothing else."""
    output, counter = tmp_path / "output", tmp_path / "count"
    run = bench.Run.start(photos, output, archive, counter)
    try:
        assert run.reaches(10)
        assert listened_on(run.process.pid) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        assert run.kill_worker(random.Random(0))
        run.reaches(bench.counted(counter) + 40)
    finally:
        run.kill_driver()
    bench.end(bench.Run.start(photos, output, archive, counter))
    assert bench.parts_of(output) == bench.parts_of(finished[0])
    assert 124 <= bench.counted(counter) <= 124 + 3 * 16


def listened_on(pid: int) -> set[str]:
    """Return the addresses on which a process and all below it listen; Ray has several such processes."""
    found = set()
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert found
    return found


def test_a_run_on_two_nodes_survives_one(
    photos: Path, archive: Path, finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.bulk", "nodes", "--nodes", "1", "--photos", str(photos), "--archive", str(archive),
         "--folder", str(finished[0].parent), "--keep", str(tmp_path / "found.json")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    [found] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["nodes"]["found"]
    assert found["bytes_equal"]
    assert 0 < found["killed_at"] < 1
