"""The steps of a release against a real registry, with the images that are served."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.container.registry import Registry, commit_of
from tests.container.stack import MISSING, ROOT, docker

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

pytestmark = [pytest.mark.container, pytest.mark.slow]

CHANGELOG = "# Changelog\n\n## [9.8.7] - 2026-11-27\n\n### Fixed\n- one thing\n"
FILES = [
    "image-digests.txt",
    "metrics.json",
    "petclf-gateway-image.cdx.json",
    "petclf-image.cdx.json",
    "petclf-int8.pt",
    "petclf.pt",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release reads of the project, for a version that is not released yet."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (folder / "pyproject.toml").write_text('version = "9.8.7"\n', encoding="utf-8")
    shutil.copytree(ROOT / "pretrained", folder / "pretrained")
    return folder


def run(registry: Registry, project: Path, commit: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    with registry.login() as private:
        settings = {
            "RELEASE": "v9.8.7",
            "REGISTRY": f"{registry.address}/petclf",
            "TAG": commit,
            "PYTHONPATH": str(ROOT),
            **private,
        }
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=project, env={**os.environ, **settings}, capture_output=True, text=True, check=False)


def test_a_release_is_what_ci_published_under_a_version_that_never_changes(registry: Registry, project: Path) -> None:
    commit = registry.push("released")
    names = [f"{registry.address}/petclf", f"{registry.address}/petclf-gateway"]
    docker("tag", "petclf-gateway:local", f"{names[1]}:{commit}")
    registry.send(f"{names[1]}:{commit}")
    sboms = [
        ["tooling.sbom", f"{name}:{commit}", f"build/release/{file}-image.cdx.json"]
        for name, file in zip(names, ("petclf", "petclf-gateway"), strict=True)
    ]
    steps = [["tooling.release", name] for name in ("check", "notes", "images", "files")]
    try:
        for step in [*steps, *sboms, ["tooling.release", "checksums"], ["tooling.release", "tag"], ["tooling.release", "tag"]]:
            done = run(registry, project, commit, *step)
            assert done.returncode == 0, (step, done.stderr)

        folder = project / "build" / "release"
        [archive] = folder.glob("*.mar")
        listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
        assert sorted(listed) == sorted([archive.name, *FILES])
        assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in listed} == listed
        with zipfile.ZipFile(archive) as packed:
            assert (
                packed.read("petclf.pt")
                == (folder / "petclf.pt").read_bytes()
                == (ROOT / "pretrained" / "petclf.pt").read_bytes()
            )
        about = json.loads((folder / "petclf-image.cdx.json").read_text(encoding="utf-8"))["metadata"]["component"]["properties"]
        assert {"name": "petclf:commit", "value": commit} in about

        digests = dict(line.split("  ")[::-1] for line in (folder / "image-digests.txt").read_text(encoding="utf-8").splitlines())
        assert list(digests) == names
        for name, digest in digests.items():
            with registry.login() as private:
                docker("pull", "-q", f"{name}:9.8.7", environment=private)
            assert f"{name}@sha256:{digest}" in json.loads(docker("image", "inspect", f"{name}:9.8.7"))[0]["RepoDigests"]

        another = registry.push("another with the same version")
        docker("tag", "petclf-gateway:local", f"{names[1]}:{another}")
        registry.send(f"{names[1]}:{another}")
        assert run(registry, project, another, "tooling.release", "images").returncode == 0
        taken = run(registry, project, another, "tooling.release", "tag")
        assert (taken.returncode, taken.stdout) == (1, "")
        assert taken.stderr.startswith(f"error: {names[0]}:9.8.7 is another image already (")
    finally:
        for image in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if image.startswith(registry.address):
                docker("rmi", image, check=False)


def test_an_image_of_another_commit_is_not_released(registry: Registry, project: Path) -> None:
    commit = registry.push("labelled wrongly", label=commit_of("elsewhere"))
    gateway = f"{registry.address}/petclf-gateway:{commit}"
    docker("tag", "petclf-gateway:local", gateway)
    registry.send(gateway)
    done = run(registry, project, commit, "tooling.release", "images")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {registry.address}/petclf:{commit} was built from commit {commit_of('elsewhere')}\n",
    )
