"""Imports go one way: scripts -> operate -> serving -> model files, training and bulk -> handler's reading of photos, handler -> itself."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"handler", "training", "serving", "operate", "bulk", "scripts", "benchmarks", "tooling", "web", "tests"}
PACKAGES = {"PIL": "pillow", "pillow_heif": "pillow-heif", "yaml": "PyYAML"}  # imported under another name than installed
SHARED = {f"handler.{name}" for name in ("photo_input", "statistics", "golden", "model_file")}


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


def test_scripts_know_files_http_and_the_supervisor() -> None:
    assert foreign_to("scripts", {"scripts", "operate", "serving", "bulk", "web", "handler.model_file"}) == {}


def test_only_the_command_for_many_photos_knows_bulk() -> None:
    knowing = {
        str(file.relative_to(ROOT))
        for package in ("handler", "training", "serving", "operate", "scripts")
        for file in ROOT.glob(f"{package}/*.py")
        if "bulk" in top_level(file)
    }
    assert knowing == {"scripts/score_many.py"}


def test_bulk_knows_the_handler_but_not_torchserves_side_of_it() -> None:
    ours = {name for file in ROOT.glob("bulk/*.py") for name in imported(file) if name.split(".")[0] in OURS - {"bulk"}}
    assert {name for name in ours if not name.startswith("handler")} == set()
    assert {name for name in ours if name.startswith(("handler.petclf_handler", "handler.telemetry"))} == set()


def test_only_one_file_of_bulk_knows_ray() -> None:
    assert {file.name for file in ROOT.glob("bulk/*.py") if "ray" in top_level(file)} == {"cluster.py"}


def test_the_operators_commands_know_files_and_http() -> None:
    ours = {"live", "management", "say", "small_server", "store"}
    allowed = {
        "operate",
        "handler.model_file",
        "handler.archive_digest",
        "handler.statistics",
        *(f"serving.{one}" for one in ours),
    }
    assert foreign_to("operate", allowed) == {}


def test_the_supervisor_knows_model_files_and_nothing_else_of_ours() -> None:
    assert foreign_to("serving", {"serving", "handler.model_file", "handler.archive_digest"}) == {}


def test_what_releases_knows_files_and_docker() -> None:
    assert foreign_to("tooling", {"tooling", "operate.files", "operate.errors"}) == {}


def foreign_to(package: str, allowed: set[str]) -> dict[str, set[str]]:
    """Return what each file of a package imports of ours beyond what is allowed."""
    found = {}
    for file in sorted(ROOT.glob(f"{package}/*.py")):
        ours = {name for name in imported(file) if name.split(".")[0] in OURS}
        found[file.name] = {name for name in ours if not any(f"{name}.".startswith(f"{one}.") for one in allowed)}
    assert found
    return {name: ours for name, ours in found.items() if ours}


@pytest.mark.parametrize("name", ["model_file", "archive_digest"])
def test_what_the_supervisor_shares_with_the_handler_needs_python_only(name: str) -> None:
    assert top_level(ROOT / "handler" / f"{name}.py") - set(sys.stdlib_module_names) == set()


def test_only_the_handlers_entry_and_its_metrics_transport_know_torchserve() -> None:
    knowing = {
        file.name
        for file in ROOT.glob("handler/*.py")
        if "ts" in top_level(file) or "context." in file.read_text(encoding="utf-8")
    }
    assert knowing == {"petclf_handler.py", "telemetry.py"}
    reached = {file.name for file in ROOT.glob("handler/*.py") if "handler.petclf_handler" in str(imported(file))}
    assert reached == set()


def test_the_workers_packages_are_pinned() -> None:
    lines = (ROOT / "handler" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []


@pytest.mark.parametrize("package", ["handler", "training", "serving", "operate", "bulk", "scripts", "benchmarks", "tooling"])
def test_nothing_but_tests_imports_tests(package: str) -> None:
    found = {file.name: top_level(file) & {"tests"} for file in (ROOT / package).rglob("*.py")}
    assert found
    assert {name: tests for name, tests in found.items() if tests} == {}
