"""Only so many workers of a server do dear work at the same time, whatever becomes of one of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from handler.lanes import Lanes

HOLD_A_LANE = """
import sys, time
from pathlib import Path
from handler.lanes import Lanes
print(Lanes(Path(sys.argv[1]), 1).take(), flush=True)
time.sleep(60)
"""


def test_a_lane_is_one_workers_until_it_leaves(tmp_path: Path) -> None:
    one, other = Lanes(tmp_path, 1), Lanes(tmp_path, 1)

    assert [one.take(), one.take(), other.take()] == [True, True, False]
    one.leave()
    assert [other.take(), one.take()] == [True, False]


def test_two_lanes_are_for_two_workers(tmp_path: Path) -> None:
    workers = [Lanes(tmp_path, 2) for _ in range(3)]
    assert [worker.take() for worker in workers] == [True, True, False]


def test_leaving_without_a_lane_frees_nobody_elses(tmp_path: Path) -> None:
    one, other = Lanes(tmp_path, 1), Lanes(tmp_path, 1)
    assert one.take()
    other.leave()
    assert not other.take()


def test_a_killed_worker_leaves_its_lane(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", HOLD_A_LANE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout:
        assert worker.stdout.readline() == "True\n"
        assert not Lanes(tmp_path, 1).take()
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert Lanes(tmp_path, 1).take()
