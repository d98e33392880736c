"""Imports go one way: scripts -> files and HTTP, training -> handler's reading of photos, handler -> itself."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"handler", "training", "scripts", "benchmarks", "tests"}
PACKAGES = {"PIL": "pillow", "pillow_heif": "pillow-heif", "yaml": "PyYAML"}  # imported under another name than installed
SHARED = {f"handler.{name}" for name in ("photo_input", "statistics", "golden")}


def imported(file: Path) -> set[str]:
    """Return every module that the file may import, also inside functions: `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; say the whole name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top_level(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)}


def pinned() -> set[str]:
    lines = (ROOT / "handler" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {re.split("==", line)[0] for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("file", sorted(ROOT.glob("handler/*.py")), ids=lambda path: path.name)
def test_the_handler_imports_only_what_the_worker_has(file: Path) -> None:
    # TorchServe puts `ts` there itself
    foreign = top_level(file) - set(sys.stdlib_module_names) - {"handler", "ts"}
    assert {PACKAGES.get(name, name) for name in foreign} <= pinned()


@pytest.mark.parametrize("file", sorted(ROOT.glob("training/*.py")), ids=lambda path: path.name)
def test_training_takes_only_the_reading_of_photos_from_the_handler(file: Path) -> None:
    ours = {name for name in imported(file) if name.split(".")[0] in OURS - {"training"}}
    assert {name for name in ours if not any(f"{name}.".startswith(f"{shared}.") for shared in SHARED)} == set()


def test_scripts_know_files_and_http_but_none_of_our_packages() -> None:
    found = {file.name: top_level(file) & (OURS - {"scripts"}) for file in ROOT.glob("scripts/**/*.py")}
    assert {name: ours for name, ours in found.items() if ours} == {}


def test_the_workers_packages_are_pinned() -> None:
    lines = (ROOT / "handler" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []


@pytest.mark.parametrize("package", ["handler", "training", "scripts", "benchmarks"])
def test_nothing_but_tests_imports_tests(package: str) -> None:
    found = {file.name: top_level(file) & {"tests"} for file in (ROOT / package).rglob("*.py")}
    assert found
    assert {name: tests for name, tests in found.items() if tests} == {}
