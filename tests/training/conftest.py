"""A small project, trained once for all tests that look at what training leaves behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import draw_folder
from training.config import TrainConfig, load_params
from training.dataset import close_pool

ROOT = Path(__file__).parents[2]
SMALL = {
    "image_size": 64, "sizes": [32, 48], "size_shares": [0.5, 0.5], "epochs": 10, "minutes": None, "batch_size": 16,
    "zoom": [0.7, 1.0], "corruption": 0.0, "mixup": 0.0, "label_smoothing": 0.0, "ema_decay": 0.9, "tracking": False,
}  # fmt: skip


def write_params(folder: Path, **train: Any) -> Path:
    """Write the project's own params.yaml, made small, into `folder`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"photos": "photos", "doubtful_up_to": 0}
    params["train"] |= SMALL | train
    # of so few validation photos one is 3 %, and whether int8 loses it depends on the processor
    params["evaluate"] |= {"scorecard_photos": 10, "outliers": None, "photos": None, "int8_loss": 0.1}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    load_params(path)
    return path


def run_module(name: str, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m name` as a user would, in another process."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", name, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, env=child_environment(**environment), check=False,
    )  # fmt: skip


def child_environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder in which every step has run, on drawn cats and dogs."""
    folder = tmp_path_factory.mktemp("trained")
    draw_folder(folder / "photos", ("cat", "dog"), 140)
    write_params(folder, tracking=True)
    for name in ("manifest", "train", "fit", "evaluate", "export"):
        result = run_module(f"training.{name}", cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def _readers_of_its_own() -> Iterator[None]:
    """For a test that changes the folder: the processes that read photos stay in the one where they were started."""
    close_pool()
    yield
    close_pool()


@pytest.fixture
def project_config() -> TrainConfig:
    """The project's own settings."""
    return load_params(ROOT / "params.yaml").train
