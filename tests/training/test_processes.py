"""Processes of a training: no helper outlives it, and none keeps a core busy while it waits."""

import os
import re
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


SLEEPS, SPINS = 0, 300_000  # rounds that a thread of GNU's OpenMP runtime looks for work before it sleeps
gnu_openmp = pytest.mark.skipif(sys.platform != "linux", reason="only PyTorch for Linux comes with GNU's OpenMP runtime")


def spin_counts(*arguments: str, **environment: str) -> list[int]:
    """Run Python and return how long threads spin, as each OpenMP runtime reports it when it is loaded."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**plain, "OMP_NUM_THREADS": "2", "OMP_DISPLAY_ENV": "verbose", **environment},
    )  # fmt: skip
    return sorted(int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr))


@gnu_openmp
def test_threads_spin_unless_they_are_told_not_to() -> None:
    """What the tests below expect is not how the runtime behaves by itself."""
    assert spin_counts("-c", "import torch") == [SPINS]


@gnu_openmp
@pytest.mark.parametrize("module", ["training.train", "benchmarks.training_speed", "benchmarks.photo_sizes"])
def test_threads_of_a_training_sleep_while_they_wait(module: str) -> None:
    """In every OpenMP runtime that is loaded: scikit-learn brings one of its own."""
    assert set(spin_counts("-c", f"import {module}")) == {SLEEPS}


@gnu_openmp
def test_threads_of_a_helper_process_sleep_while_they_wait() -> None:
    in_helper = "from training.processes import start_pool\nif __name__ == '__main__': start_pool('spawn').submit(print).result()"
    assert set(spin_counts("-c", in_helper)) == {SLEEPS}


@gnu_openmp
def test_threads_of_every_process_that_torchrun_starts_sleep_while_they_wait() -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert spin_counts(*launcher, "-m", "training.train", "--help") == [SLEEPS, SLEEPS, SPINS]  # torchrun itself computes nothing


@gnu_openmp
def test_a_wait_policy_that_the_user_chose_stays() -> None:
    [count] = spin_counts("-c", "import training.train", OMP_WAIT_POLICY="active")
    assert count > SPINS
