"""`make setup` says what is wrong with a Python, and does nothing twice."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def stub_python(folder: Path, script: str) -> Path:
    """A program in Python's place."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def setup(python: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tooling" / "setup"), str(python), str(venv)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["3.9", "3.14"])
def test_a_python_that_does_not_work_is_refused_with_the_reason(tmp_path: Path, version: str) -> None:
    python = stub_python(tmp_path, f"echo {version}")

    result = setup(python, tmp_path / "venv")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {python} is Python {version}; 3.10 to 3.13 work (TorchScript ends at 3.14): make setup PYTHON=python3.13\n"
    )
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = setup(tmp_path / "nothing", tmp_path / "venv")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: no Python at '{tmp_path}/nothing'; install Python 3.10 to 3.13, or: make setup PYTHON=/path/to/python3\n"
    )


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    python = stub_python(tmp_path, 'if [ "$2" = venv ]; then exit 1; fi; echo 3.11')

    result = setup(python, tmp_path / "venv")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {python} cannot make an environment in {tmp_path}/venv; Debian and Ubuntu: apt-get install python3-venv\n"
    )


def test_the_environment_has_the_front_door_to_the_tools(tmp_path: Path) -> None:
    """The Python there installs nothing, and says how it was called."""
    venv = tmp_path / "an environment"
    (venv / "bin").mkdir(parents=True)
    script = 'case $1 in -c) echo 3.11 ;; -m) ;; *) echo "$PYTHONPATH"; printf "<%s>" "$@" ;; esac'
    stub_python(venv / "bin", script).rename(venv / "bin" / "python")
    assert setup(tmp_path / "nothing", venv).returncode == 0

    result = subprocess.run(
        [str(venv / "bin" / "petclf"), "predict", "my cat.jpg"], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert result.stdout == f"{ROOT}\n<{ROOT}/scripts><predict><my cat.jpg>"


@pytest.mark.parametrize("changed", ["requirements.txt", "requirements.lock", "handler/requirements.txt", "tooling/setup"])
def test_make_sets_up_again_only_when_a_requirement_changed(tmp_path: Path, changed: str) -> None:
    for name in ("Makefile", "requirements.txt", "requirements.lock", "handler/requirements.txt", "tooling/setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    os.utime(tmp_path / ".venv" / ".ready", (2000, 2000))

    def is_ready() -> bool:
        # `make test` runs this: its own settings must not reach the make that is tested
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--question", "setup", "VENV=.venv"]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0

    assert is_ready()
    os.utime(tmp_path / changed, (3000, 3000))
    assert not is_ready()


def test_the_lock_holds_every_pin_and_names_no_place_and_no_cuda() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = [line for line in lines if not line.startswith("#")]
    pins = [
        line.split(";")[0].strip()
        for name in ("requirements.txt", "handler/requirements.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if "==" in line and 'python_version < "3.11"' not in line
    ]

    def normal(line: str) -> str:
        name, version = line.split("==")
        return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"

    assert [line for line in locked if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert {normal(pin) for pin in pins} - {normal(line) for line in locked} == set()
    assert [line for line in locked if re.match("nvidia|cuda|triton", line)] == []
