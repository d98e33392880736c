"""Imports go one way: scripts -> files and HTTP, training -> handler's reading of photos, handler -> itself."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKER = {"handler", "numpy", "torch", "PIL", "pillow_heif", "yaml", "psutil", "ts"} | set(sys.stdlib_module_names)
SHARED = {"handler", "handler.photo_input", "handler.statistics", "handler.golden"}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("file", sorted(ROOT.glob("handler/*.py")), ids=lambda path: path.name)
def test_the_handler_imports_only_what_the_worker_has(file: Path) -> None:
    assert {name.split(".")[0] for name in imported(file)} <= WORKER


@pytest.mark.parametrize("file", sorted(ROOT.glob("training/*.py")), ids=lambda path: path.name)
def test_training_takes_only_the_reading_of_photos_from_the_handler(file: Path) -> None:
    ours = {name for name in imported(file) if name.split(".")[0] in ("handler", "scripts", "benchmarks", "tests")}
    assert ours <= SHARED


def test_the_workers_packages_are_pinned() -> None:
    lines = (ROOT / "handler" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))
