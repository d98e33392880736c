"""`python -m scripts`: what it lists, and what it hands on to."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.__main__ import TOOLS

ROOT = Path(__file__).parents[2]
NAMES = [name for tools in TOOLS.values() for name in tools]


def door(*arguments: str, cwd: Path = ROOT, start: tuple[str, ...] = ("-m", "scripts")) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_every_script_and_every_step_of_a_training_that_make_runs_is_listed_once() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")}
    steps = set(re.findall(r"python -m training\.(\w+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert sorted(NAMES) == sorted(scripts | steps)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_the_tools_are_listed_by_purpose_within_a_terminals_width(arguments: tuple[str, ...]) -> None:
    result = door(*arguments)
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert [line for line in lines if re.match(r"\w.*:$", line)] == [f"{purpose}:" for purpose in TOOLS]
    assert [line.split()[0] for line in lines if line.startswith("  ")] == NAMES
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ["make_key", "make-key"])
def test_a_tool_answers_as_it_does_without_the_door(name: str) -> None:
    itself = door("--help", start=("-m", "scripts.make_key"))
    through = door(name, "--help")
    assert itself.stdout.startswith("usage: make_key.py")
    assert (through.returncode, through.stdout, through.stderr) == (itself.returncode, itself.stdout, itself.stderr)


def test_arguments_and_exit_code_are_passed_on_also_from_another_folder(tmp_path: Path) -> None:
    result = door("make_key", "keys", "two words", cwd=tmp_path, start=(str(ROOT / "scripts"),))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: 'two words' is no name for a key; use letters, digits, dots, hyphens\n"


def test_a_step_of_the_training_is_a_tool_too(tmp_path: Path) -> None:
    result = door("manifest", "--help", cwd=tmp_path, start=(str(ROOT / "scripts"),))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: manifest.py")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("predcit", "no tool is called predcit; did you mean predict?"),
        ("late-lables", "no tool is called late_lables; did you mean late_labels?"),
        ("archive", "no tool is called archive; did you mean build_archive?"),
        ("__main__", "no tool is called __main__; petclf --help lists them all"),
        ("xyz", "no tool is called xyz; petclf --help lists them all"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, told: str) -> None:
    result = door(name)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {told}\n")
