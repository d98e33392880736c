"""The list of what an image holds, from files that are made here; tests/container compares it with the real image."""

import hashlib
import io
import json
import tarfile
import zipfile
from typing import Any

import pytest

from tooling.sbom import document, inventory

SITE = "usr/local/lib/python3.11/site-packages"
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u14
Description: GNU C Library
 Package: nothing
"""
GONE = "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"


def zipped(**files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return data.getvalue()


JAR = zipped(**{
    "META-INF/io.netty.versions.properties": "netty-handler.version=4.1.53.Final\nnetty-handler.longCommitHash=12\nnetty-handler.version=4.1.53.Final\n",
    "META-INF/maven/g/a/pom.properties": "version=1.0\r\ngroupId=com.google\r\nartifactId=gson\r\n",
})  # fmt: skip
ARCHIVE = zipped(**{"MAR-INF/MANIFEST.json": json.dumps({"model": {"modelName": "petclf", "modelVersion": "2.0.0"}})})
WHEEL = {"components": [
    {"name": "libwebp", "version": "1.6.0"}, {"name": "libXau", "version": "1.0.9", "purl": "pkg:rpm/almalinux/libXau@1.0.9"},
    {"name": "PIL._webp", "version": "13.0.0", "purl": "pkg:pypi/pillow@13.0.0#c-ext/PIL._webp"}, {"name": "pybind11"},
]}  # fmt: skip
FILES = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    f"{SITE}/Pillow_x-13.0.0.dist-info/METADATA": b"Metadata-Version: 2.4\nName: Pillow_x\nVersion: 13.0.0\n\nName: not this\n",
    f"{SITE}/Pillow_x-13.0.0.dist-info/sboms/auditwheel.cdx.json": json.dumps(WHEEL).encode(),
    f"{SITE}/other/METADATA": b"Name: no package\nVersion: 1\n",
    "var/lib/dpkg/status.d/libc6": STATUS.encode(),
    "opt/server.jar": JAR,
    "opt/model.mar": ARCHIVE,
    "opt/jdk/release": b'IMPLEMENTOR="E"\nJAVA_VERSION="25.0.2"\n',
    "opt/other/release": b"12",
    "usr/local/bin/python3.11": b"\x7fELF no version",
    "usr/local/lib/libpython3.11.so.1.0": b"\x7fELF\x003.11.14\x00 3.11.0\x00",
}


def listed(files: dict[str, bytes]) -> dict[str, Any]:
    """Return the document of an image with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    data.seek(0)
    with tarfile.open(fileobj=data, mode="r|") as packed:
        components = inventory(packed).components()
    labels = {
        "org.opencontainers.image.title": "petclf",
        "org.opencontainers.image.version": "2.0.0",
        "org.opencontainers.image.revision": "c0ffee",
    }
    about = {"Id": "sha256:12", "Created": "2026-11-27T03:51:03.437214123Z", "Config": {"Labels": labels}}
    found: dict[str, Any] = json.loads(document(about, components))
    return found


def facts(component: dict[str, Any]) -> tuple[str, ...]:
    return (component["type"], component["name"], component.get("version", ""), component.get("purl", ""))


def test_everything_that_says_what_it_is_is_listed_and_nothing_else() -> None:
    found = listed(FILES)["components"]
    assert sorted(facts(one) for one in found) == [
        ("file", "server.jar", "", ""),
        ("library", "libc6", "2.36-9+deb12u14", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"),
        ("library", "pillow-x", "13.0.0", "pkg:pypi/pillow-x@13.0.0"),
        ("machine-learning-model", "petclf", "2.0.0", ""),
        ("platform", "cpython", "3.11.14", "pkg:generic/cpython@3.11.14"),
        ("platform", "openjdk", "25.0.2", "pkg:generic/openjdk@25.0.2"),
    ]


def test_jars_and_wheels_list_what_they_declare_of_what_is_inside() -> None:
    inside = {
        one["name"]: sorted(facts(part) for part in one["components"])
        for one in listed(FILES)["components"]
        if "components" in one
    }
    assert inside == {
        "server.jar": [
            ("library", "com.google:gson", "1.0", "pkg:maven/com.google/gson@1.0"),
            ("library", "io.netty:netty-handler", "4.1.53.Final", "pkg:maven/io.netty/netty-handler@4.1.53.Final"),
        ],
        "pillow-x": [("library", "libXau", "1.0.9", "pkg:rpm/almalinux/libXau@1.0.9"), ("library", "libwebp", "1.6.0", "")],
    }


def test_what_has_no_version_of_its_own_is_known_by_its_digest() -> None:
    found = {one["name"]: one["hashes"] for one in listed(FILES)["components"] if "hashes" in one}
    digests = {"server.jar": JAR, "petclf": ARCHIVE}
    assert found == {name: [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}] for name, data in digests.items()}


def test_a_whole_debian_is_read_without_what_was_removed() -> None:
    files = {"usr/lib/os-release": b"ID=debian\nVERSION_ID=13\n", "var/lib/dpkg/status": f"{STATUS}\n{GONE}".encode()}
    assert [one["purl"] for one in listed(files)["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-13"
    ]


def test_the_document_is_of_one_image_and_the_same_each_time() -> None:
    found = listed(FILES)
    assert found == listed(dict(reversed(FILES.items())))
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    about = found["metadata"]["component"]
    assert (about["type"], about["name"], about["version"], found["metadata"]["timestamp"]) == (
        "container", "petclf", "2.0.0", "2026-11-27T03:51:03.437214+00:00",
    )  # fmt: skip
    assert {one["name"]: one["value"] for one in about["properties"]} == {"petclf:commit": "c0ffee", "petclf:image": "sha256:12"}
    [depends] = [one["dependsOn"] for one in found["dependencies"] if one["ref"] == "image"]
    assert sorted(depends) == sorted(one["bom-ref"] for one in found["components"])


def test_two_copies_of_a_package_are_two_things_to_replace() -> None:
    metadata = b"Name: same\nVersion: 1\n\n"
    found = listed({f"{folder}/same-1.dist-info/METADATA": metadata for folder in ("a", "b")})["components"]
    assert [facts(one) for one in found] == [("library", "same", "1", "pkg:pypi/same@1")] * 2


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-11-27T03:51:03Z", "2026-11-27T03:51:03+00:00"),
        ("2026-11-27T03:51:03.4372149Z", "2026-11-27T03:51:03.437214+00:00"),
        ("2026-11-27T03:51:03.43Z", "2026-11-27T03:51:03.430000+00:00"),
        ("2026-11-27T03:51:03.5+01:00", "2026-11-27T03:51:03.500000+01:00"),
    ],
)
def test_every_form_of_dockers_time_is_read(created: str, expected: str) -> None:
    text = document({"Id": "sha256:12", "Created": created, "Config": {"Labels": None}}, [])
    assert json.loads(text)["metadata"]["timestamp"] == expected
