"""What the container tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def images() -> None:
    """petclf:local and petclf-gateway:local, built as a user builds them (PETCLF_DOCKER_BUILD adds options to docker build)."""
    options = [f"DOCKER_BUILD={os.environ.get('PETCLF_DOCKER_BUILD', '')}", f"VENV={Path(sys.executable).parents[1]}"]
    (ROOT / "model_store").mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "scripts.build_archive"], cwd=ROOT, check=True, capture_output=True)
    result = subprocess.run(["make", "image-from-archive", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
