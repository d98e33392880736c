"""The workflow runs nothing that cannot be run here, with no more rights than it needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_is_a_make_target(path: Path) -> None:
    targets = set(re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    assert [command for command in commands if command not in {f"make {target}" for target in targets}] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_has_more_rights_or_time_than_it_needs(path: Path) -> None:
    content = workflow(path)
    assert content["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
    assert rights == {"publish": {"contents": "read", "packages": "write"}}
    assert [name for name, job in content["jobs"].items() if not 0 < job.get("timeout-minutes", 0) <= 60] == []
    checkouts = [step for step in steps(path) if "checkout@" in step.get("uses", "")]
    assert [step for step in checkouts if step["with"] != {"persist-credentials": False}] == []


def test_an_image_is_published_only_from_main_and_when_all_is_green() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert jobs["publish"]["needs"] == ["check", "image"]
    assert "refs/heads/main" in jobs["publish"]["if"]


def test_the_image_that_is_smoke_tested_holds_the_archive_that_was_handed_on() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    uploaded = [step["with"]["name"] for step in jobs["archive"]["steps"] if "upload" in step.get("uses", "")]
    downloaded = [step["with"]["name"] for step in jobs["image"]["steps"] if "download" in step.get("uses", "")]
    commands = [step["run"] for step in jobs["image"]["steps"] if "run" in step]
    assert uploaded == downloaded == ["archive"]
    assert commands.index("make image-from-archive") < commands.index("make up-built") < commands.index("make smoke")
