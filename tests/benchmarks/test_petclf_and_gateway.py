"""petclf behind its gateway, as the comparison starts it, ends as a whole: what went on would be measured with the next system."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, free_port, wait_until

pytestmark = pytest.mark.e2e


def test_told_to_stop_it_leaves_nothing_running(tmp_path: Path) -> None:
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("no nginx here; Debian: apt-get install nginx-light")
    if not any((ROOT / "model_store").glob("*.mar")):
        subprocess.run([sys.executable, "-m", "scripts.build_archive"], cwd=ROOT, check=True)
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        pair = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.petclf_and_gateway", str(port), str(tmp_path)],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def answers() -> bool:
        assert pair.poll() is None, (tmp_path / "log").read_text()
        try:
            return requests.post(f"http://127.0.0.1:{port}/predict", encoded(draw_photo("cat", 1, (64, 64))), timeout=10).ok
        except requests.ConnectionError:
            return False

    wait_until(answers, 60)
    started = psutil.Process(pair.pid).children(recursive=True)
    pair.terminate()

    assert pair.wait(30) == 0
    wait_until(lambda: not any(process.is_running() for process in started))
    assert len(started) >= 5  # the supervisor, Java, two workers, nginx
