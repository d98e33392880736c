"""The images that the container tests run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.registry import REGISTRY, Registry
from tests.container.stack import ROOT, docker
from tests.e2e.conftest import free_port


@pytest.fixture(scope="session")
def images() -> None:
    """petclf:local and petclf-gateway:local, built as a user builds them (PETCLF_DOCKER_BUILD adds options to docker build).

    PETCLF_IMAGES_BUILT=1 takes the images that are there.
    """
    if os.environ.get("PETCLF_IMAGES_BUILT"):
        return
    options = [f"DOCKER_BUILD={os.environ.get('PETCLF_DOCKER_BUILD', '')}", f"VENV={Path(sys.executable).parents[1]}"]
    (ROOT / "model_store").mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "scripts.build_archive"], cwd=ROOT, check=True, capture_output=True)
    result = subprocess.run(["make", "image-from-archive", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def registry(images: None) -> Iterator[Registry]:  # noqa: ARG001
    options = os.environ.get("PETCLF_DOCKER_BUILD", "").split()
    built = subprocess.run(
        ["docker", "build", *options, "-q", "-t", "petclf-deploytest-registry", "-"],
        input=REGISTRY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"no registry can be built here: {built.stderr[-200:]}")
    port = free_port()
    container = docker("run", "-d", "--rm", "-p", f"127.0.0.1:{port}:5000", "petclf-deploytest-registry")
    yield Registry(f"127.0.0.1:{port}")
    docker("rm", "-f", "-v", container)
    docker("rmi", "petclf-deploytest-registry", check=False)
