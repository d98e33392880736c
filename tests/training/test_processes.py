"""Helper processes: none outlives its training."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TRAINING = """
import os, sys, time
from training.processes import start_pool
pool = start_pool(sys.argv[1])
print(*{job.result() for job in [pool.submit(os.getpid) for _ in range(20)]}, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_helpers_of_a_killed_training_end(method: str) -> None:
    with subprocess.Popen([sys.executable, "-c", TRAINING, method], cwd=ROOT, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        helpers = [int(pid) for pid in training.stdout.readline().split()]
        assert helpers
        assert all(is_alive(pid) for pid in helpers)
        training.kill()
    end = time.monotonic() + 10
    while left := [pid for pid in helpers if is_alive(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.1)
