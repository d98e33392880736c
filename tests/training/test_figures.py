"""Figures are written to metrics.json and read back as what they were."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import UserError
from training.figures import (
    CoveragePoint,
    Figures,
    Int8,
    PhotoSet,
    Promise,
    Scorecard,
    Share,
    Sure,
    Unlike,
    as_json,
    read_figures,
)  # fmt: skip

RELEASED = Path(__file__).parents[2] / "pretrained" / "metrics.json"
SHARE = {"accuracy": 0.75, "interval": [0.3, 0.95], "photos": 4}
SET = PhotoSet(
    **SHARE, balanced_accuracy=0.75, f1={"cat": 0.7, "dog": 0.8}, roc_auc=0.9, log_loss=0.2, calibration_error=0.01,
    confusion=[[1, 1], [0, 2]],
)  # fmt: skip
UNLIKE = Unlike(threshold=0.8, fitted_on_other_things=True, pets_refused=0.03, others_refused=0.9, others=10, others_roc_auc=0.95)
PROMISE = Promise(wrong_when_sure=0.005, confidence=0.95, kept=True, sure=900, wrong=0)
INT8 = Int8(
    val=SET, test=SET, temperature=1.1, unsure_below=0.9, promise=PROMISE, sure=Sure(**SHARE, coverage=0.8), unlike=UNLIKE,
    same_answer=0.99,
)  # fmt: skip
FIGURES = Figures(
    val=SET, test=SET, temperature=1.2, unsure_below=0.9, promise=PROMISE, sure=Sure(**SHARE, coverage=0.9), unlike=UNLIKE,
    camera_photos=SET, scorecard=Scorecard(photos=4, accuracy={"grey": 0.9}, mean=0.9), labels=["cat", "dog"], image_size=64,
    parameters=100, data_digest="d", photos={"train": 8, "val": 4, "test": 4}, training_minutes=1.5, calibration="c",
    calibration_error_before=0.2, coverage=[CoveragePoint(threshold=0.5, coverage=1.0, accuracy=0.75)],
    slices={"dark": Share(**SHARE)}, baselines={"mean colour": 0.5}, int8=INT8,
)  # fmt: skip


def written(figures: Figures, folder: Path) -> Path:
    path = folder / "metrics.json"
    path.write_text(json.dumps(as_json(figures)))
    return path


def test_figures_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_figures(written(FIGURES, tmp_path)) == FIGURES


def test_what_was_not_measured_is_left_out_and_reads_as_none(tmp_path: Path) -> None:
    bare = replace(FIGURES, camera_photos=None, scorecard=None, baselines=None, int8=None, test=replace(SET, roc_auc=None))
    path = written(bare, tmp_path)

    content = json.loads(path.read_text())

    assert {"camera_photos", "scorecard", "baselines", "int8"} & set(content) == set()
    assert "roc_auc" not in content["test"]
    assert read_figures(path) == bare


def test_the_released_models_figures_can_be_read() -> None:
    assert as_json(read_figures(RELEASED)) == json.loads(RELEASED.read_text())


@pytest.mark.parametrize("content", ["{}", "nothing", "[]", '{"labels": 5}', '{"test": {"colour": 1}}'])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)

    with pytest.raises(UserError, match=r"metrics\.json does not hold the figures of an evaluation .*; run `make evaluate`"):
        read_figures(tmp_path / "metrics.json")


def test_no_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no figures at .*; run `make evaluate`"):
        read_figures(tmp_path / "metrics.json")
