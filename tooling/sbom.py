"""What an image consists of, as a CycloneDX document: sbom.py IMAGE FILE.

It reads the image's files, never runs it, and lists what they say of themselves: Python packages (dist-info, with the libraries that a
wheel declares), Debian packages (dpkg's status), Python, Java, jars with what they declare, and model archives by their digest.
The same image gives the same bytes.
"""

import argparse
import email.parser
import hashlib
import io
import json
import re
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from operate.files import write_whole
from tooling.image import ToolError, described, opened

PYTHON = re.compile(r"usr/local/(bin/python3\.\d+|lib/libpython3\.\d+\.so\.1\.0)")
PYTHON_VERSION = re.compile(rb"[\x00-](3\.\d+\.\d+(?:(?:rc|a|b)\d+)?)\x00")
NETTY = re.compile(r"^([\w-]+)\.version=(.+)$", re.MULTILINE)


def component(kind: ComponentType, name: str, version: str, purl: PackageURL | None, path: str, **more: Any) -> Component:
    """Return a component; where its file lies is part of it, for two copies are two things to replace."""
    reference = f"{purl or name}#{path}"
    return Component(
        type=kind, name=name, version=version, purl=purl, bom_ref=BomRef(reference), properties=[Property(name="petclf:path", value=path)], **more
    )  # fmt: skip


def library(purl: PackageURL, path: str, **more: Any) -> Component:
    name = f"{purl.namespace}:{purl.name}" if purl.type == "maven" else purl.name
    return component(ComponentType.LIBRARY, name, purl.version or "", purl, path, **more)


def sha256(data: bytes) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(data).hexdigest())]


class Inventory:
    """What has been found in the files so far."""

    def __init__(self, distribution: str = "") -> None:
        self.found: list[Component] = []
        self.declared: dict[str, list[dict[str, Any]]] = {}  # by wheels, of the libraries inside them
        self.distribution = distribution

    def read(self, path: str, data: bytes) -> None:
        place = PurePosixPath(path)
        if place.name == "METADATA" and place.parent.suffix == ".dist-info":
            self.python_package(path, data)
        elif place.parent.name == "sboms" and place.parent.parent.suffix == ".dist-info":
            self.declared.setdefault(str(place.parent.parent), []).extend(json.loads(data).get("components", []))
        elif path == "var/lib/dpkg/status" or place.parent == PurePosixPath("var/lib/dpkg/status.d"):
            self.debian_packages(path, data.decode())
        elif place.suffix == ".jar":
            self.found.append(jar(path, data))
        elif place.suffix == ".mar":
            self.found.append(model(path, data))
        elif place.name == "release" and data.startswith((b"JAVA_", b"IMPLEMENTOR=")):
            self.java(path, data.decode())
        elif PYTHON.fullmatch(path) and (version := PYTHON_VERSION.search(data)):
            self.python(path, version[1].decode())

    def python_package(self, path: str, data: bytes) -> None:
        about = email.parser.BytesHeaderParser().parsebytes(data)
        name, version = about["Name"], about["Version"]
        purl = PackageURL("pypi", name=re.sub(r"[-_.]+", "-", name).lower(), version=version)
        self.found.append(library(purl, str(PurePosixPath(path).parent)))

    def debian_packages(self, path: str, status: str) -> None:
        for text in status.strip().split("\n\n"):
            about = email.parser.HeaderParser().parsestr(text)
            if about["Status"] not in (None, "install ok installed"):
                continue
            qualifiers = {"arch": about["Architecture"], "distro": self.distribution}
            purl = PackageURL("deb", "debian", about["Package"], about["Version"], qualifiers)
            self.found.append(library(purl, path))

    def java(self, path: str, text: str) -> None:
        version = re.findall(r'^JAVA_VERSION="(.*)"$', text, re.MULTILINE)[0]
        self.found.append(
            component(ComponentType.PLATFORM, "openjdk", version, PackageURL("generic", name="openjdk", version=version), path)
        )

    def python(self, path: str, version: str) -> None:
        if not any(one.name == "cpython" for one in self.found):  # program and library are one thing
            purl = PackageURL("generic", name="cpython", version=version)
            self.found.append(component(ComponentType.PLATFORM, "cpython", version, purl, path))

    def components(self) -> list[Component]:
        """Return everything, with what wheels declare of themselves inside the wheels."""
        for one in self.found:
            place = next(item.value for item in one.properties if item.name == "petclf:path") or ""
            one.components.update(inside(place, self.declared.get(place, [])))
        return sorted(self.found, key=lambda one: one.bom_ref.value or "")


def inside(place: str, declared: Iterable[dict[str, Any]]) -> Iterator[Component]:
    """Yield the libraries in a wheel: its own parts, and what has no version, are no news."""
    for number, entry in enumerate(declared):
        if entry.get("version") and not str(entry.get("purl", "")).startswith("pkg:pypi/"):
            purl = PackageURL.from_string(entry["purl"]) if entry.get("purl") else None
            yield component(ComponentType.LIBRARY, entry["name"], entry["version"], purl, f"{place}/sboms#{number}")


def model(path: str, data: bytes) -> Component:
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        about = json.loads(files.read("MAR-INF/MANIFEST.json"))["model"]
    return component(
        ComponentType.MACHINE_LEARNING_MODEL, about["modelName"], about["modelVersion"], None, path, hashes=sha256(data)
    )


def jar(path: str, data: bytes) -> Component:
    """Return a jar with the libraries that it says are merged into it: by Maven's own files, or by Netty's."""
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        known = {purl.to_string(): purl for purl in merged(files)}
    libraries = [library(known[one], path) for one in sorted(known)]
    found = component(ComponentType.FILE, PurePosixPath(path).name, "", None, path, hashes=sha256(data), components=libraries)
    found.properties.add(Property(name="petclf:contents", value="what the jar declares; it may hold more"))
    return found


def merged(files: zipfile.ZipFile) -> Iterator[PackageURL]:
    for name in files.namelist():
        if name.endswith("/pom.properties"):
            about = dict(re.findall(r"^(\w+)=(.*)$", files.read(name).decode().replace("\r", ""), re.MULTILINE))
            yield PackageURL("maven", about["groupId"], about["artifactId"], about["version"])
        elif name == "META-INF/io.netty.versions.properties":
            for artifact, version in NETTY.findall(files.read(name).decode().replace("\r", "")):
                yield PackageURL("maven", "io.netty", artifact, version)


def distribution(files: dict[str, bytes]) -> str:
    about = dict(re.findall(r'^(\w+)="?(.*?)"?$', files.get("etc/os-release", b"").decode(), re.MULTILINE))
    return f"{about.get('ID', 'linux')}-{about.get('VERSION_ID', '')}".rstrip("-")


def wanted(path: str) -> bool:
    place = PurePosixPath(path)
    return (
        place.parent.suffix == ".dist-info" or place.parent.name in ("sboms", "status.d") or place.suffix in (".jar", ".mar")
        or place.name == "release" or path in ("var/lib/dpkg/status", "etc/os-release", "usr/lib/os-release") or bool(PYTHON.fullmatch(path))
    )  # fmt: skip


def inventory(files: tarfile.TarFile) -> Inventory:
    """Read what matters of a file system; the distribution's name is somewhere in the middle of it."""
    kept = {}
    for member in files:
        path = member.name.removeprefix("./")
        if member.isfile() and wanted(path):
            content = files.extractfile(member)
            kept[path] = content.read() if content else b""
    kept.setdefault("etc/os-release", kept.get("usr/lib/os-release", b""))
    found = Inventory(distribution(kept))
    for path in sorted(kept):
        found.read(path, kept[path])
    return found


def document(about: dict[str, Any], components: list[Component]) -> str:
    """Return the CycloneDX document of an image."""
    labels = about["Config"]["Labels"] or {}
    version = labels.get("org.opencontainers.image.version", "")
    identity = {"petclf:image": about["Id"], "petclf:commit": labels.get("org.opencontainers.image.revision", "")}
    image = Component(
        type=ComponentType.CONTAINER, name=labels.get("org.opencontainers.image.title", "image"), version=version, bom_ref=BomRef("image"),
        properties=[Property(name=name, value=value) for name, value in identity.items() if value],
    )  # fmt: skip
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, about["Id"]))
    bom.metadata.component = image
    bom.metadata.timestamp = moment(about["Created"])
    bom.register_dependency(image, components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def moment(text: str) -> datetime:
    """Read Docker's time, which has nine digits of a second or fewer; Python 3.10 takes six."""
    return datetime.fromisoformat(
        re.sub(r"\.(\d+)", lambda digits: "." + digits[1][:6].ljust(6, "0"), text).replace("Z", "+00:00")
    )


def sbom(image: str) -> str:
    with opened(image) as files:
        found = inventory(files)
    return document(described(image), found.components())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="an image that the Docker engine here has")
    parser.add_argument("file", type=Path, help="where the document is written")
    args = parser.parse_args()
    try:
        write_whole(args.file, sbom(args.image))
    except (ToolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{args.file}: {args.image}")


if __name__ == "__main__":
    main()
