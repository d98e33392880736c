"""A training of several processes, as the Job of deploy/k8s starts it: killed as a whole, the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import child_environment, run_module
from tests.training.test_train import figures, prepare

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def command() -> list[str]:
    """Return what the Job runs, with this Python."""
    job = yaml.safe_load((ROOT / "deploy" / "k8s" / "training" / "job.yaml").read_text(encoding="utf-8"))
    [training] = job["spec"]["template"]["spec"]["containers"]
    assert training["command"][0] == "python"
    return [sys.executable, "-W", "ignore", *training["command"][1:]]


def test_a_killed_training_of_two_processes_goes_on_with_two_and_with_no_other_number(tmp_path: Path) -> None:
    whole, cut = prepare(tmp_path / "whole", count=40, epochs=4), tmp_path / "cut"
    shutil.copytree(whole, cut)
    environment = child_environment()
    uninterrupted = subprocess.run(command(), cwd=whole, env=environment, capture_output=True, text=True, check=False)
    assert uninterrupted.returncode == 0, uninterrupted.stderr

    with subprocess.Popen(
        command(), cwd=cut, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as killed:
        assert killed.stdout
        for line in killed.stdout:
            if line.startswith("epoch 2 "):
                time.sleep(0.2)  # into the next epoch
                break
        os.killpg(killed.pid, signal.SIGKILL)
    resumed = subprocess.run(command(), cwd=cut, env=environment, capture_output=True, text=True, check=False)

    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("continuing after epoch") == 1
    assert figures(cut) == figures(whole)

    alone = run_module("training.train", cwd=cut)
    assert alone.returncode == 2
    assert "belongs to another configuration (processes 2 -> 1)" in alone.stderr
