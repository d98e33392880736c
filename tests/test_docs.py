"""What the documents say is so."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
METRICS = json.loads((ROOT / "pretrained" / "metrics.json").read_text())


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_make_command_in_the_docs_exists(path: Path) -> None:
    named = re.findall(r"`make ([a-z_-]+)|^ {0,4}make ([a-z_-]+)", path.read_text(), re.MULTILINE)
    assert {one or other for one, other in named} <= make_targets()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_into_the_project_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_make_help_lists_every_documented_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    documented = re.findall(r"^([a-z_-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make ([a-z_-]+)", shown, re.MULTILINE) == documented


def test_every_stage_of_the_pipeline_is_a_command_that_exists() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["prepare", "train", "evaluate", "export"]
    for stage in stages.values():
        assert (ROOT / f"{stage['cmd'].removeprefix('python -m ').replace('.', '/')}.py").exists()


@pytest.mark.parametrize("name", ["README.md", "docs/model-card.md"])
def test_the_figures_are_those_that_were_measured(name: str) -> None:
    """Every figure in a line with a metric's name in a comment is that metric, as measured at the release."""
    lines = re.findall(r"^.*<!-- ([\w., ]+?) -->.*$", (ROOT / name).read_text(), re.MULTILINE)
    assert len(lines) >= 4
    for line in re.finditer(r"^(.*)<!-- ([\w., ]+?) -->.*$", (ROOT / name).read_text(), re.MULTILINE):
        value = METRICS
        for key in line[2].split(".", 1):
            value = value[key]
        shown = {f"{value:.2%}", f"{value:.4f}", f"{value:,.0f}"}
        assert any(form in line[1] for form in shown), f"{line[0]} does not show {value}"
