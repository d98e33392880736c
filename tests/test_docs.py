"""What the documents say is so."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_boundaries import imported
from training.config import load_params

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
DOCS = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
WITH_FIGURES = ["README.md", "docs/model-card.md", "docs/report.md"]
# they tell and keep, and change no result
PLUMBING = {
    f"training/{name}.py" for name in ("config", "errors", "files", "memory", "paths", "processes", "provenance", "tracking")
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z_-]+):", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_make_command_in_the_docs_exists(path: Path) -> None:
    text = re.sub(r"```text\n.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)  # what a tool has printed
    named = re.findall(r"`make ([a-z_-]+)|^ {0,4}make ([a-z_-]+)", text, re.MULTILINE)
    assert {one or other for one, other in named} <= make_targets()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_into_the_project_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_to_a_heading_finds_it(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#\s]*)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    assert [(name, anchor) for name, anchor in links if anchor not in anchors(path.parent / name if name else path)] == []


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z_-]+)", shown, re.MULTILINE)) == make_targets()


def test_make_help_shows_each_target_under_its_purpose() -> None:
    """A heading of the Makefile, which stands there once, holds for the targets below it."""
    command = ["make", "--no-print-directory", "help"]  # make test is a make around it
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    groups = {part.splitlines()[0]: re.findall(r"^  make ([a-z_-]+)", part, re.MULTILINE) for part in shown.split("\n\n")}
    assert list(groups) == ["First steps:", "Train:", "Serve and release:", "Operate:", "Deploy:", "Develop:"]
    assert sorted(name for names in groups.values() for name in names) == sorted(make_targets())
    one_of_each = ("demo", "train", "serve", "drift", "up", "check")
    assert [name for name, names in zip(one_of_each, groups.values(), strict=True) if name not in names] == []
    assert max(map(len, shown.splitlines())) <= 140  # a wide terminal


def test_the_readme_shows_how_to_set_up_and_test_and_stays_short() -> None:
    commands = re.findall(r"^    make ([a-z_-]+)", read("README.md"), re.MULTILINE)
    assert {"setup", "test"} <= set(commands)
    assert len(read("README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_setting_that_the_docs_name_is_in_the_params(path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    named = re.findall(r"`(data|train|evaluate|export)\.(\w+)`", path.read_text(encoding="utf-8"))
    assert [f"{section}.{key}" for section, key in named if not hasattr(getattr(params, section), key)] == []


def test_every_stage_of_the_pipeline_runs_what_make_runs() -> None:
    stages = yaml.safe_load(read("dvc.yaml"))["stages"]
    made = re.findall(r"python (-m training\.\w+)", read("Makefile"))
    assert list(stages) == ["prepare", "train", "fit", "evaluate", "export"]
    assert [stage["cmd"] for stage in stages.values() if stage["cmd"].removeprefix("python ").split(" --")[0] not in made] == []


@pytest.mark.parametrize("stage", ["prepare", "train", "fit", "evaluate", "export"])
def test_a_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    """The other stages' own files are followed through what they make, not through their code."""
    stages = yaml.safe_load(read("dvc.yaml"))["stages"]
    starts = {name: entry["cmd"].split()[2].replace(".", "/") + ".py" for name, entry in stages.items()}
    others = set(starts.values()) - {starts[stage]}
    assert {name for name in stages[stage]["deps"] if name.endswith(".py")} == reached(starts[stage], others | PLUMBING)


def reached(start: str, stops: set[str]) -> set[str]:
    """Return our files that `start` imports, directly or not, and itself; what `stops` import is not followed."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in found or name in stops or not (ROOT / name).is_file():
            continue
        found.add(name)
        for module in imported(ROOT / name):
            parts = module.split(".")
            waiting += ["/".join(parts[:count]) + ".py" for count in range(1, len(parts) + 1)]
    return found


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_the_figures_are_those_that_were_measured(name: str) -> None:
    """A table's last cell followed by a comment with a metric's name shows that metric, as measured at the release."""
    metrics = json.loads(read("pretrained/metrics.json"))
    shown = re.findall(r"\| ([^|]+?) <!-- ([\w., ]+?) --> \|$", read(name), re.MULTILINE)

    assert len(shown) == read(name).count("<!--")
    assert len(shown) >= 4
    assert [(figure, key) for figure, key in shown if figure != written(key, metrics)] == []


def recorded() -> list[tuple[str, str, str]]:
    """Return what, figures and record of the rows that name their record, and of README's table, which names it above."""
    rows = re.findall(r"^\| (.*?) \| (.*?) \| \[[^]]*\]\(\.\./(benchmarks/\S+?)\) \|$", read("docs/report.md"), re.MULTILINE)
    [(name, table)] = re.findall(
        r"\(\[record\]\((benchmarks/\S+?)\).*?\n\n(.*?)\n\n", read("README.md").partition("## How fast")[2], re.DOTALL
    )
    return rows + [(line.split("|")[1].strip(), " ".join(line.split("|")[2:]), name) for line in table.splitlines()[2:]]


@pytest.mark.parametrize(("what", "figures", "record"), recorded())
def test_a_figure_stands_in_its_record(what: str, figures: str, record: str) -> None:
    wanted = re.findall(r"\d[\d,.]*%?", figures)
    assert wanted, what
    assert [figure for figure in wanted if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", read(record))] == []


def test_the_report_names_a_record_for_each_figure_that_is_none_of_the_models() -> None:
    rows = re.findall(r"^\| (?!what|---)(.*) \|$", read("docs/report.md"), re.MULTILINE)
    assert len(rows) >= 25
    assert [row for row in rows if not re.search(r"<!-- .* -->$|\]\(\.\./benchmarks/\S+\)$", row)] == []


NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\.?\d*")
NOT_IN_A_RECORD = {  # beside a record, and not from it
    *(("kubernetes.md", figure) for figure in ("384", "22", "1,000", "90", "10001", "127.0", "9080", "9083", "8081", "8084")),  # settings
    *(("scaling.md", figure) for figure in ("9.6", "92", "0.005", "337")),  # settings, and what follows from two figures of a record
    *(("drift.md", figure) for figure in ("200,000", "240")),  # measured by hand, as the page says
    ("operations.md", "30"), ("operations.md", "10001"), ("security.md", "9"), ("security.md", "8081"), ("shadow.md", "20"), ("shadow.md", "2024"),
    ("scaling.md", "15"),
}  # fmt: skip


def sections_with_records() -> list[tuple[str, str, str]]:
    """Return page, heading and text of each section that links records."""
    pages = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ("experiments.md", "report.md")]
    parts = [
        (path.name, part)
        for path in pages
        for part in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    return [(name, part.splitlines()[0], part) for name, part in parts if "](../benchmarks/results/" in part and "\n| " in part]


@pytest.mark.parametrize(("name", "heading", "text"), sections_with_records(), ids=lambda value: value[:30].strip("# "))
def test_figures_stand_in_the_records_beside_them_but_for_rounding(name: str, heading: str, text: str) -> None:
    records = " ".join(read(record) for record in set(re.findall(r"\]\(\.\./(benchmarks/\S+?\.md)\)", text)))
    known = [as_number(figure) for figure in NUMBER.findall(records)]
    lines = [
        re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)
        for line in text.splitlines()
        if "<!--" not in line and not line.startswith("    ")
    ]
    said = [
        line.strip("|").partition("|")[2] if line.startswith("|") else line for line in lines
    ]  # a row begins with what it is about
    shown = [figure.rstrip(",.") for part in said for figure in NUMBER.findall(part)]
    wrong = [figure for figure in shown if not any(rounds_to(value, figure) for value in known)]
    assert [figure for figure in wrong if (name, figure) not in NOT_IN_A_RECORD] == [], heading


def as_number(figure: str) -> float:
    return float(figure.replace(",", ""))


def rounds_to(value: float, figure: str) -> bool:
    return abs(value - as_number(figure)) <= 0.5 * 10 ** -len(figure.partition(".")[2]) + 1e-9


def written(key: str, metrics: dict[str, Any]) -> str:
    value: Any = metrics
    for part in key.split("."):
        value = value[part]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if any(word in key for word in ("error", "auc", "loss")) else f"{value:.2%}"


def test_the_changelog_is_of_this_project_and_of_the_model_that_it_ships() -> None:
    """The newest release in the changelog is the project's version; the model gives MAJOR.MINOR."""
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    [project] = re.findall(r'^version = "(.*)"$', read("pyproject.toml"), re.MULTILINE)
    model = load_params(ROOT / "params.yaml").export.version

    assert headings[0] == "[Unreleased]"
    releases = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings[1:]]
    assert [heading for heading, release in zip(headings[1:], releases, strict=True) if not release] == []
    versions = [tuple(map(int, release[1].split("."))) for release in releases if release]
    assert versions == sorted(set(versions), reverse=True)
    assert ".".join(map(str, versions[0])) == project
    assert project.split(".")[:2] == model.split(".")[:2]


def test_the_changelog_has_only_the_sections_of_keep_a_changelog() -> None:
    sections = set(re.findall(r"^### (.*)$", read("CHANGELOG.md"), re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_no_figure_is_left_to_be_filled_in(name: str) -> None:
    assert re.findall(r"@[\w., ]+@|TODO|TBD", read(name)) == []
