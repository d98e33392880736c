"""The last predictions of all workers together."""

import multiprocessing
from pathlib import Path

from handler.recent import COUNT, STATISTICS, Recent

LABELS = ["cat", "dog"]
FACTS = dict.fromkeys(STATISTICS, 0.5)


def entry(
    label: str = "cat", unsure: bool = False, seconds: float = 0.004, **facts: float
) -> tuple[str, bool, float, dict[str, float]]:
    return label, unsure, seconds, {**FACTS, **facts}


def test_before_the_first_prediction_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert Recent(tmp_path / "ring", LABELS).summary() == {
        "predictions": 0,
        "total": 0,
        "counted": {"photos": 0, "unsure": 0, "failed": 0, "seconds": 0.0},
        "labels": {"cat": 0, "dog": 0},
        "unsure": 0,
        "mean_confidence": None,
        "mean_milliseconds": None,
        "statistics": {},
    }


def test_two_workers_tell_the_same(tmp_path: Path) -> None:
    one, other = Recent(tmp_path / "ring", LABELS), Recent(tmp_path / "ring", LABELS)
    one.add([entry("cat", confidence=0.9, seconds=0.002), entry("dog", True, confidence=0.6, seconds=0.004)])
    other.add([entry("dog", confidence=0.9, brightness=0.8, seconds=0.006)], failed=2)

    assert one.summary() == other.summary()
    assert one.summary() == {
        "predictions": 3,
        "total": 3,
        "counted": {"photos": 3, "unsure": 1, "failed": 2, "seconds": 0.012},
        "labels": {"cat": 1, "dog": 2},
        "unsure": 1,
        "mean_confidence": 0.8,
        "mean_milliseconds": 4.0,
        "statistics": {
            "brightness": 0.6, "contrast": 0.5, "sharpness": 0.5, "colourfulness": 0.5, "confidence": 0.8, "unlike": 0.5,
        },
    }  # fmt: skip


def test_only_the_last_hundred_count(tmp_path: Path) -> None:
    recent = Recent(tmp_path / "ring", LABELS)
    recent.add([entry("cat")] * 70)
    recent.add([entry("dog")] * 60)

    summary = recent.summary()
    assert (summary["predictions"], summary["total"], summary["labels"]) == (COUNT, 130, {"cat": 40, "dog": 60})


def add_many(path: Path) -> None:
    recent = Recent(path, LABELS)
    for _ in range(500):
        recent.add([entry()])


def test_no_prediction_is_lost_between_workers(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("spawn").Process(target=add_many, args=(tmp_path / "ring",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Recent(tmp_path / "ring", LABELS).summary()["total"] == 1000
