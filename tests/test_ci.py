"""The workflows run nothing that cannot be run here, with no more rights than they need."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# every right beyond reading the project
RIGHTS = {
    "ci.yml": {"publish": {"contents": "read", "packages": "write"}},
    "deploy.yml": {"deploy": {"contents": "read", "packages": "read"}},
    "pages.yml": {"publish": {"pages": "write", "id-token": "write"}},
    "release.yml": {
        "files": {"contents": "read", "packages": "read"},
        "attest": {"id-token": "write", "attestations": "write"},
        "publish": {"contents": "write", "packages": "write"},
    },
    "train.yml": {},
}
MINUTES = {"train.yml": 350}  # GitHub ends a job after 360
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def workflow(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["on"] = content.pop(True)  # YAML reads `on` as yes
    return content


def named(name: str) -> dict[str, Any]:
    return workflow(ROOT / ".github" / "workflows" / name)


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def runs(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def artifacts(job: dict[str, Any], action: str) -> set[str]:
    return {step["with"]["name"] for step in job["steps"] if f"{action}-artifact@" in step.get("uses", "")}


def before(jobs: dict[str, Any], name: str) -> set[str]:
    """Return the jobs that have ended when this one starts."""
    needs = jobs[name].get("needs", [])
    direct = [needs] if isinstance(needs, str) else needs
    return {one for need in direct for one in {need, *before(jobs, need)}}


def test_every_workflow_says_which_rights_it_needs() -> None:
    assert [path.name for path in WORKFLOWS] == sorted(RIGHTS)


@each
def test_every_command_is_a_make_target_that_make_knows_how_to_make(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    assert [command for command in commands if not re.fullmatch(r"make [a-z-]+", command)] == []
    planned = ["make", "--dry-run", "--always-make", "DEPLOY_TO=compose", *(command.split()[1] for command in commands)]
    result = subprocess.run(planned, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@each
def test_every_setting_of_a_command_is_one_that_something_reads(path: Path) -> None:
    readers = MAKEFILE + "".join(file.read_text(encoding="utf-8") for file in (ROOT / "deploy").iterdir() if file.is_file())
    readers += (ROOT / "tooling" / "release.py").read_text(encoding="utf-8")
    given = {name for step in [workflow(path), *steps(path)] for name in step.get("env", {})} - {"GH_TOKEN"}  # gh's own
    assert sorted(name for name in given if not re.search(rf"\b{name}\b", readers)) == []


@each
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_an_action_is_the_same_version_everywhere() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    assert len({line.split("@")[0] for line in used}) == len(used)


@each
def test_no_job_has_more_rights_or_time_than_it_needs(path: Path) -> None:
    content = workflow(path)
    assert content["permissions"] in ({}, {"contents": "read"})
    rights = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
    assert rights == RIGHTS[path.name]
    longest = MINUTES.get(path.name, 60)
    assert [name for name, job in content["jobs"].items() if not 0 < job.get("timeout-minutes", 0) <= longest] == []
    checkouts = [step["with"] for step in steps(path) if "checkout@" in step.get("uses", "")]
    assert [settings for settings in checkouts if settings.get("persist-credentials") is not False] == []


@each
def test_no_stranger_starts_anything_with_rights(path: Path) -> None:
    triggers = set(workflow(path)["on"])
    assert triggers <= {"push", "pull_request", "workflow_run", "workflow_dispatch"}
    if "pull_request" in triggers:  # GitHub gives those of strangers no secrets; with rights is only what a push starts
        with_rights = [job for job in workflow(path)["jobs"].values() if "permissions" in job]
        assert [job for job in with_rights if "github.event_name == 'push'" not in job["if"]] == []


@each
def test_what_a_job_takes_over_was_made_by_a_job_before_it(path: Path) -> None:
    jobs = workflow(path)["jobs"]
    for name, job in jobs.items():
        handed_on = {one for other in before(jobs, name) for one in artifacts(jobs[other], "upload")}
        assert artifacts(job, "download") <= handed_on, name


def test_an_image_is_published_only_from_main_and_when_all_is_green() -> None:
    jobs = named("ci.yml")["jobs"]
    assert before(jobs, "publish") == {"check", "archive", "image"}
    assert "refs/heads/main" in jobs["publish"]["if"]


def test_the_image_that_is_smoke_tested_holds_the_archive_that_was_handed_on() -> None:
    jobs = named("ci.yml")["jobs"]
    commands = runs(jobs["image"])
    assert artifacts(jobs["archive"], "upload") == artifacts(jobs["image"], "download") == {"archive"}
    assert commands.index("make image-from-archive") < commands.index("make up-built") < commands.index("make smoke")


def test_main_is_deployed_after_ci_has_published_it_and_nothing_else_is() -> None:
    content = named("deploy.yml")
    job = content["jobs"]["deploy"]
    assert content["on"]["workflow_run"] == {"workflows": [named("ci.yml")["name"]], "types": ["completed"], "branches": ["main"]}
    condition = " ".join(job["if"].split())
    for needed in ("conclusion == 'success'", "event == 'push'", "head_repository.full_name == github.repository"):
        assert f"github.event.workflow_run.{needed}" in condition
    assert "branches: [main]" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_the_commit_that_ci_tested_is_the_one_whose_image_and_scripts_are_deployed() -> None:
    job = named("deploy.yml")["jobs"]["deploy"]
    commit = "${{ inputs.commit || github.event.workflow_run.head_sha }}"
    [checkout] = [step["with"]["ref"] for step in job["steps"] if "checkout@" in step.get("uses", "")]
    [deploy] = [step["env"]["TAG"] for step in job["steps"] if step.get("run") == "make deploy"]
    [published] = [
        step["env"]["TAG"] for step in named("ci.yml")["jobs"]["publish"]["steps"] if step.get("run") == "make publish"
    ]
    assert (checkout, deploy, published) == (commit, commit, "${{ github.sha }}")


@pytest.mark.parametrize("name", ["deploy.yml", "release.yml"])
def test_one_is_under_way_at_a_time_and_none_is_cut(name: str) -> None:
    assert named(name)["concurrency"]["cancel-in-progress"] is False


def test_a_release_is_checked_first_attested_before_it_is_public_and_made_of_what_ci_published() -> None:
    content = named("release.yml")
    jobs = content["jobs"]
    assert content["on"] == {"push": {"tags": ["v*"]}}
    assert runs(jobs["files"])[0] == "make release-check"
    assert runs(jobs["files"])[-1] == "make checksums"
    assert before(jobs, "publish") == {"files", "attest"}
    assert [command for job in jobs.values() for command in runs(job) if command in ("make archive", "make image")] == []
    attested = [step["with"] for step in jobs["attest"]["steps"] if "attest-build-provenance@" in step.get("uses", "")]
    assert attested == [{"subject-checksums": f"build/release/{name}"} for name in ("SHA256SUMS", "image-digests.txt")]


def test_a_person_starts_a_training() -> None:
    content = named("train.yml")
    assert set(content["on"]) == {"workflow_dispatch"}
    assert runs(content["jobs"]["train"]) == [f"make {name}" for name in ("data", "train", "evaluate", "export", "archive")]


def test_dependabot_looks_where_there_is_something_to_keep_up_to_date() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    kept = {
        "github-actions": ".github/workflows/ci.yml", "pip": "requirements.txt", "docker": "Dockerfile", "docker-compose": "docker-compose.yml",
        "npm": "package-lock.json",
    }  # fmt: skip
    assert {update["package-ecosystem"] for update in updates} == set(kept)
    places = [
        (update["package-ecosystem"], folder)
        for update in updates
        for folder in update.get("directories", [update.get("directory")])
    ]
    assert [place for place in places if not (ROOT / place[1].lstrip("/") / kept[place[0]]).is_file()] == []
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    homes = {
        ("/" + str(Path(name).parent)).removesuffix("/.") or "/"
        for name in tracked
        if Path(name).name in ("Dockerfile", "package-lock.json")
    }
    assert homes - {folder for _, folder in places} == {
        "/benchmarks/peers"
    }  # moves by hand: a record names the versions that it measured
