"""What the workers are told by their environment."""

import argparse
from pathlib import Path

import pytest

from serving.command import environment


@pytest.mark.parametrize(("workers", "dear"), [(1, "1"), (2, "1"), (3, "1"), (4, "2"), (8, "4")])
def test_half_of_the_workers_at_least_one_may_do_dear_work(tmp_path: Path, workers: int, dear: str) -> None:
    args = argparse.Namespace(workers=workers, model_store=tmp_path)
    assert environment(args, tmp_path)["PETCLF_DEAR_WORKERS"] == dear
