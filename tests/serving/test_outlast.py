"""The server's hook waits for the gateway, and no longer than it may."""

import subprocess
import sys
import time
from pathlib import Path

from serving.outlast import main

ROOT = Path(__file__).parents[2]


def test_it_waits_until_the_file_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "nginx.pid"
    file.write_text("7\n")
    with subprocess.Popen([sys.executable, "-m", "serving.outlast", str(file), "--seconds", "60"], cwd=ROOT) as waiting:
        time.sleep(1.5)
        assert waiting.poll() is None
        file.unlink()
        assert waiting.wait(30) == 0


def test_a_gateway_that_left_its_file_behind_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "nginx.pid"
    file.write_text("7\n")
    started = time.monotonic()
    main([str(file), "--seconds", "0.5"])
    assert 0.5 <= time.monotonic() - started < 30


def test_without_a_gateway_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    started = time.monotonic()
    main([str(tmp_path / "nginx.pid"), "--seconds", "60"])
    assert time.monotonic() - started < 30
