"""Re-splits show whether a promise is kept."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import promise
from tests.training.conftest import ROOT


def write_answers(path: Path, flat: float) -> None:
    """Write answers to 2,000 photos: right as often as they are confident, but for a share that is wrong besides."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("val", 1000), ("test", 1000)):
        margin = np.abs(random.normal(8, 3, count)).astype(np.float32)
        wrong = (random.random(count) > 1 / (1 + np.exp(-margin))) | (random.random(count) < flat)
        arrays[f"{split}_truth"] = random.integers(2, size=count)
        answers = np.where(wrong, 1 - arrays[f"{split}_truth"], arrays[f"{split}_truth"])
        arrays[f"fp32_{split}_logits"] = np.where(answers[:, None] == np.arange(2), margin[:, None], 0).astype(np.float32)
        arrays[f"fp32_{split}_unlike"] = random.random(count).astype(np.float32)
    np.savez(path, **arrays)


@pytest.mark.parametrize(("flat", "promised"), [(0.0, range(10, 41)), (0.03, range(1))])
def test_a_promise_is_given_and_kept_only_where_the_answers_are_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flat: float, promised: range
) -> None:
    write_answers(tmp_path / "answers.npz", flat)

    promise.main(["--answers", str(tmp_path / "answers.npz"), "--params", str(ROOT / "params.yaml"), "--deals", "40"])

    [row] = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| fp32")]
    assert row[1] == "1,000 + 1,000"
    assert int(row[2].removesuffix(" of 40")) in promised
    assert int(row[3].split()[0]) <= 6
