"""A part is finished once, whoever tries, and a photo that kills its readers costs no more than its own answer."""

import shutil
from pathlib import Path

import pytest

from bulk import cluster
from bulk import plan as plans
from bulk.careful import survivors
from bulk.errors import BulkError
from bulk.files import Output
from bulk.scorer import Model
from bulk.source import source_of
from bulk.summary import forget_passing, summary_of
from bulk.work import DEATHS, Job, finish
from handler.refusal import Refusal
from tests.bulk import deadly
from tests.drawing import draw_photo

MARK = ".part-000001.parquet.begun"


@pytest.fixture
def job(model: Model, tmp_path: Path) -> Job:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        draw_photo("cat", seed).save(folder / f"{seed}.jpg")
    (folder / "9.jpg").write_bytes(b"no photo")
    source, output = source_of(str(folder)), Output(str(tmp_path / "output"))
    listed = source.listed()
    plan = plans.begin(output, plans.plan_of(str(folder), source, listed, model, 3), listed.names)
    return Job(plan, source, output, model)


def test_a_part_is_written_once_and_reported(job: Job) -> None:
    first = finish(job, 1)
    assert (first["part"], first["photos"], first["refused"]) == (1, 3, 1)
    assert first["seconds"] > 0
    assert finish(job, 1) == {"part": 1, "photos": 3, "refused": 0, "seconds": 0.0}
    assert job.output.names("answers") == ["part-000001.parquet"]


def test_photos_that_killed_workers_are_tried_apart_and_the_part_has_the_same_bytes(job: Job) -> None:
    finish(job, 1)
    usual = job.output.read("answers/part-000001.parquet")
    shutil.rmtree(job.output.path("answers"))
    job.output.write(f"answers/{MARK}", b"." * DEATHS)
    finish(job, 1)
    assert job.output.read("answers/part-000001.parquet") == usual
    assert job.output.names("answers") == ["part-000001.parquet"]


def test_a_failure_leaves_a_mark(job: Job) -> None:
    shutil.rmtree(job.output.path(""))
    job.output.write("answers/notes", b"")
    for times in (1, 2):
        with pytest.raises(FileNotFoundError):
            finish(job, 1)
        assert job.output.read(f"answers/{MARK}") == b"." * times


def test_parts_with_photos_that_could_not_be_read_are_forgotten_when_asked(job: Job) -> None:
    for part in (0, 1):
        finish(job, part)
    assert forget_passing(job.output, job.plan, set()) == 0  # a broken photo stays broken
    lost = Path(job.plan.source) / "0.jpg"
    lost.rename(lost.with_suffix(".away"))
    job.output.remove("answers/part-000000.parquet")
    finish(job, 0)
    lost.with_suffix(".away").rename(lost)
    assert summary_of(job.output, job.plan)["refused"] == {"cannot_read": 1, "not_an_image": 1}
    assert forget_passing(job.output, job.plan, set()) == 1
    assert plans.left(job.output, job.plan) == [0]
    with pytest.raises(BulkError, match=r"part-000000\.parquet is missing; on a cluster, all machines must see --output"):
        summary_of(job.output, job.plan)
    finish(job, 0)
    assert summary_of(job.output, job.plan)["refused"] == {"not_an_image": 1}


def test_a_deadly_photo_is_refused_and_its_neighbours_live() -> None:
    away = Refusal("cannot_read", "it is away")
    photos = [(b"1", b"harmless"), (b"2", deadly.DEADLY), (b"3", away), (b"4", deadly.DEADLY), (b"5", b"harmless")]
    found = list(survivors(iter(photos), deadly.read))
    assert [name for name, _ in found] == [b"1", b"2", b"3", b"4", b"5"]
    told = [data.message if isinstance(data, Refusal) else data for _, data in found]
    ended = "reading the photo ended the process that read it"
    assert told == [b"harmless", ended, "it is away", ended, b"harmless"]


@pytest.mark.parametrize(
    ("parts", "workers", "most", "sizes"),
    [
        (0, 2, 4, []),
        (1, 2, 4, [1]),
        (5, 1, 1, [1, 1, 1, 1, 1]),
        (20, 2, 4, [4, 4, 3, 3, 2, 1, 1, 1, 1]),
        (9, 8, 100, [1] * 9),
    ],
)
def test_workers_get_many_parts_at_once_and_few_at_the_end(parts: int, workers: int, most: int, sizes: list[int]) -> None:
    numbers = list(range(100, 100 + parts))
    found = list(cluster.portions(numbers, workers, most))
    assert [len(some) for some in found] == sizes
    assert [part for some in found for part in some] == numbers


def test_a_worker_stops_at_the_first_part_that_fails() -> None:
    reports = iter([{"part": 1, "failure": ""}, {"part": 2, "failure": "the disk is full"}, {"part": 3, "failure": ""}])
    assert [report["part"] for report in cluster.until_a_failure(reports)] == [1, 2]
