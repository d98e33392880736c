"""DVC runs the same pipeline, once, and carries its results to another clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import draw_folder
from tests.training.conftest import ROOT, child_environment, write_params

pytestmark = pytest.mark.slow


def dvc(*arguments: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=cwd,
        env=child_environment(PATH=path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def test_the_pipeline_runs_once_and_travels_through_a_remote(tmp_path: Path) -> None:
    project, clone, remote = tmp_path / "project", tmp_path / "clone", tmp_path / "remote"
    project.mkdir()
    for name in ("training", "handler", "dvc.yaml", ".dvc", ".dvcignore", ".gitignore"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        shutil.copytree(source, project / name, ignore=ignore) if source.is_dir() else shutil.copy(source, project / name)
    draw_folder(project / "photos", ("cat", "dog"), 40)
    write_params(project, epochs=1)
    git("init", "--quiet", cwd=project)

    first = dvc("repro", cwd=project)
    second = dvc("repro", cwd=project)

    assert [f"Running stage '{name}'" in first for name in ("prepare", "train", "fit", "evaluate", "export")] == [True] * 5
    assert "Running stage" not in second
    assert "Data and pipelines are up to date." in second

    dvc("remote", "add", "--default", "store", str(remote), cwd=project)
    dvc("push", cwd=project)
    git("add", "dvc.yaml", "dvc.lock", "params.yaml", ".dvc/config", ".gitignore", cwd=project)
    git("commit", "--quiet", "-m", "one", cwd=project)
    git("clone", "--quiet", str(project), str(clone), cwd=tmp_path)
    dvc("pull", cwd=clone)

    for name in ("data/manifest.csv", "build/weights.pt", "build/petclf.pt", "reports/metrics.json"):
        assert (clone / name).read_bytes() == (project / name).read_bytes()
