"""The steps of a release: what they refuse, and what they leave in build/release."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from operate.errors import NotDoneError
from tests.tooling.standin import StandIns
from tooling.image import ToolError
from tooling.release import Release, checksums, section

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

### Added
- not yet

## [2.0.1] - 2026-11-27

### Fixed
- one thing

### Added
- another

## [2.0.0] - 2026-11-26

## [1.0.0] - 2026-11-01
- the first
"""
COMMIT = "0123456789" * 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a release reads of the project."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "2.0.1"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def commands(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "bin", "docker", "gh")


def step(name: str, project: Path, path: str | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
    settings = {"RELEASE": "v2.0.1", "REGISTRY": "ghcr.io/owner/petclf", "TAG": COMMIT, **changes}
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT), "PATH": path or os.environ["PATH"]}
    command = [sys.executable, "-m", "tooling.release", name]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_the_notes_are_what_the_changelog_says_of_this_version() -> None:
    assert section(CHANGELOG, "2.0.1") == "### Fixed\n- one thing\n\n### Added\n- another\n"
    assert section(CHANGELOG, "1.0.0") == "- the first\n"


@pytest.mark.parametrize(
    ("version", "reason"),
    [("2.0.0", "says nothing under [2.0.0]"), ("3.0.0", "has no '## [3.0.0] - DATE'"), ("2.0", "has no '## [2.0] - DATE'")],
)
def test_a_version_that_the_changelog_does_not_describe_is_refused(version: str, reason: str) -> None:
    with pytest.raises(NotDoneError, match=re.escape(reason)):
        section(CHANGELOG, version)


def test_every_released_version_of_this_project_has_notes() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d.*)\]", changelog, re.MULTILINE)
    assert versions
    assert [version for version in versions if not section(changelog, version)] == []


@pytest.mark.parametrize("tag", ["2.0.1", "v2.0", "v2.0.1-rc1", "", "v2.0.1\n"])
def test_a_tag_that_is_no_release_is_a_wrong_command(tag: str) -> None:
    with pytest.raises(ToolError, match=r"such as v2\.0\.1"):
        _ = Release(tag, "", "").version


def test_the_tag_must_be_the_projects_version(project: Path) -> None:
    right, other, wrong = (step("check", project, RELEASE=tag) for tag in ("v2.0.1", "v1.0.0", "newest"))
    assert (right.returncode, right.stdout) == (0, "v2.0.1 is this version, and CHANGELOG.md describes it\n")
    assert (other.returncode, other.stdout) == (1, "")
    assert (
        other.stderr
        == "error: the tag is v1.0.0, but pyproject.toml has version 2.0.1; tag another commit, or change one of them\n"
    )
    assert (wrong.returncode, wrong.stderr) == (2, "error: RELEASE is 'newest'; write the tag of a release, such as v2.0.1\n")


def test_the_notes_name_the_image_and_the_commit(project: Path) -> None:
    assert step("notes", project).returncode == 0
    written = (project / "build" / "release" / "notes.md").read_text(encoding="utf-8")
    assert written.startswith("### Fixed\n- one thing\n")
    assert f"`ghcr.io/owner/petclf:2.0.1`, built from {COMMIT}." in written


def test_the_checksums_are_of_everything_that_is_attached(project: Path) -> None:
    folder = project / "build" / "release"
    folder.mkdir(parents=True)
    for name in ("b.pt", "a.mar", "notes.md", ".cut.tmp"):
        (folder / name).write_bytes(name.encode())
    checksums(Release("v2.0.1", "", ""))
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a.mar", "b.pt")]
    assert (folder / "SHA256SUMS").read_text(encoding="utf-8") == "".join(lines)
    verified = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert verified.returncode == 0


def test_nothing_to_attach_is_an_error(project: Path) -> None:
    (project / "build" / "release").mkdir(parents=True)
    result = step("checksums", project)
    assert (result.returncode, result.stderr) == (2, "error: build/release is empty; run the steps before this one\n")


@pytest.fixture
def attached(project: Path) -> Path:
    folder = project / "build" / "release"
    folder.mkdir(parents=True)
    for name in ("a.mar", "SHA256SUMS", "notes.md"):
        (folder / name).write_text(name, encoding="utf-8")
    return project


CREATE = ["gh", "release", "create", "v2.0.1", "--verify-tag", "--draft", "--title", "2.0.1", "--notes-file", "build/release/notes.md",
    "build/release/a.mar", "build/release/SHA256SUMS"]  # fmt: skip
VIEW = ["gh", "release", "view", "v2.0.1", "--json", "isDraft", "--jq", ".isDraft"]
SHOW = ["gh", "release", "edit", "v2.0.1", "--draft=false"]
DELETE = ["gh", "release", "delete", "v2.0.1", "--yes"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"code": 1, "err": "release not found"}, [VIEW, CREATE, SHOW]),
        ({"out": "true"}, [VIEW, DELETE, CREATE, SHOW]),  # a draft of a try that was cut
        ({"out": "false"}, [VIEW]),
    ],
)
def test_a_release_is_a_draft_until_every_file_is_there(
    attached: Path, commands: StandIns, there: dict[str, object], expected: list[list[str]]
) -> None:
    commands.answer(("release view", there))
    result = step("publish", attached, commands.path())
    assert (result.returncode, result.stderr) == (0, "")
    assert commands.calls() == expected


def test_what_github_refuses_is_said(attached: Path, commands: StandIns) -> None:
    commands.answer(("release view", {"code": 1}), ("release create", {"code": 1, "err": "tag v2.0.1 doesn't exist"}))
    result = step("publish", attached, commands.path())
    assert (result.returncode, result.stderr) == (2, "error: gh release create v2.0.1: tag v2.0.1 doesn't exist\n")
    assert SHOW not in commands.calls()


@pytest.mark.parametrize(("registry", "commit"), [("", COMMIT), ("ghcr.io/owner/petclf", "main"), ("ghcr.io/owner/petclf", "")])
def test_images_are_named_by_registry_and_commit(project: Path, registry: str, commit: str) -> None:
    result = step("images", project, REGISTRY=registry, TAG=commit)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("write a registry's name and a commit of 40 digits\n")


def test_a_missing_docker_is_said(project: Path, tmp_path: Path) -> None:
    result = step("images", project, str(tmp_path))
    assert (result.returncode, result.stderr) == (2, "error: there is no docker command here; install Docker\n")
