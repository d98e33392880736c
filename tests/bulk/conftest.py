"""The released model's archive, and what a worker makes of it."""

from pathlib import Path

import pytest

from bulk.scorer import Model, Scorer
from scripts.build_archive import build_archive

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "petclf.mar"
    build_archive(ROOT / "pretrained" / "petclf.pt", path)
    return path


@pytest.fixture(scope="session")
def model(archive: Path) -> Model:
    return Model.of(archive)


@pytest.fixture(scope="session")
def scorer(model: Model) -> Scorer:
    return Scorer(model)
