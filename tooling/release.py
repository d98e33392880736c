"""The steps of a release, in their order: check, notes, images, files, checksums, tag, publish. Each may be run again.

RELEASE is the tag (v2.0.1), REGISTRY where the images are (ghcr.io/owner/petclf), TAG the commit whose images ci has published. What is
released are those very images and what is inside them: nothing is built again. Results lie in build/release.
"""

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from operate.errors import NotDoneError
from operate.files import write_whole
from tooling.image import ToolError, described, docker, opened

FOLDER = Path("build/release")
NOTES = "notes.md"
DIGESTS = "image-digests.txt"  # in the form of SHA256SUMS, so that both can be attested
CHECKSUMS = "SHA256SUMS"
REVISION = "org.opencontainers.image.revision"


@dataclass(frozen=True)
class Release:
    """What is released, as the environment says."""

    tag: str
    registry: str
    commit: str

    @property
    def version(self) -> str:
        if not re.fullmatch(r"v\d+\.\d+\.\d+", self.tag):
            raise ToolError(f"RELEASE is '{self.tag}'; write the tag of a release, such as v2.0.1")
        return self.tag.removeprefix("v")

    def images(self) -> dict[str, str]:
        """Return where the server's and the gateway's images are, and their names by commit."""
        if not self.registry or not re.fullmatch(r"[0-9a-f]{40}", self.commit):
            raise ToolError(
                f"REGISTRY is '{self.registry}' and TAG is '{self.commit}'; write a registry's name and a commit of 40 digits"
            )
        return {name: f"{name}:{self.commit}" for name in (self.registry, f"{self.registry}-gateway")}


def section(changelog: str, version: str) -> str:
    """Return what the changelog says of a version."""
    found = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise NotDoneError(f"CHANGELOG.md has no '## [{version}] - DATE'; move what is under Unreleased there")
    if not found[1].strip():
        raise NotDoneError(f"CHANGELOG.md says nothing under [{version}]")
    return found[1].strip() + "\n"


def check(release: Release) -> str:
    """Is the tag this version of the project, and does the changelog describe it?"""
    [project] = re.findall(r'^version = "(.*)"$', Path("pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if project != release.version:
        raise NotDoneError(
            f"the tag is {release.tag}, but pyproject.toml has version {project}; tag another commit, or change one of them"
        )
    section(Path("CHANGELOG.md").read_text(encoding="utf-8"), release.version)
    return f"{release.tag} is this version, and CHANGELOG.md describes it"


def notes(release: Release) -> str:
    text = section(Path("CHANGELOG.md").read_text(encoding="utf-8"), release.version)
    image = f"{release.registry}:{release.version}"
    write_whole(
        FOLDER / NOTES,
        f"{text}\nImage: `{image}`, built from {release.commit}. How to check what you download: docs/deployment.md\n",
    )
    return f"{FOLDER / NOTES}"


def images(release: Release) -> str:
    """Pull what ci has published for the commit, and note the digests."""
    lines = []
    for name, image in release.images().items():
        docker("pull", "-q", image)
        lines.append(f"{digest(image, name)}  {name}")
    built = (described(f"{release.registry}:{release.commit}")["Config"]["Labels"] or {}).get(REVISION)
    if built != release.commit:
        raise NotDoneError(f"{release.registry}:{release.commit} was built from commit {built}")
    write_whole(FOLDER / DIGESTS, "\n".join(lines) + "\n")
    return "\n".join(lines)


def digest(image: str, name: str) -> str:
    """Return the digest that the registry knows an image by."""
    known = [one.split("@sha256:") for one in described(image)["RepoDigests"]]
    found = [pair[1] for pair in known if pair[0] == name]
    if not found:
        raise ToolError(f"{image} has no digest of {name}; pull it from there, or push it")
    return found[0]


def files(release: Release) -> str:
    """Take the archive out of the image, and the model out of the archive: what was tested, to the last byte."""
    [image, _] = release.images().values()
    with opened(image) as content:
        archives = {
            PurePosixPath(member.name).name: stream.read()
            for member in content
            if member.name.startswith("opt/petclf/model_store/")
            and member.name.endswith(".mar")
            and (stream := content.extractfile(member))
        }
    if len(archives) != 1:
        raise NotDoneError(f"{image} holds {len(archives)} archives; a release has one")
    [(name, data)] = archives.items()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {name: data, **{one: archive.read(one) for one in ("petclf.pt", "petclf-int8.pt")}}
    for one in ("petclf.pt", "petclf-int8.pt"):
        if found[one] != Path("pretrained", one).read_bytes():
            raise NotDoneError(f"{one} in {image} is not pretrained/{one}, whose figures the release states")
    found["metrics.json"] = Path("pretrained/metrics.json").read_bytes()
    for one, content_of_it in found.items():
        write_whole(FOLDER / one, content_of_it)
    return ", ".join(sorted(found))


def assets() -> list[Path]:
    """Return what is attached to the release, its checksums apart."""
    found = [path for path in FOLDER.iterdir() if path.name not in (NOTES, CHECKSUMS) and not path.name.startswith(".")]
    if not found:
        raise ToolError(f"{FOLDER} is empty; run the steps before this one")
    return sorted(found)


def checksums(release: Release) -> str:  # noqa: ARG001
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in assets()]
    write_whole(FOLDER / CHECKSUMS, "\n".join(lines) + "\n")
    return "\n".join(lines)


def tag(release: Release) -> str:
    """Give the images the version as a second name; a version that is taken stays what it is."""
    known = dict(line.split("  ")[::-1] for line in (FOLDER / DIGESTS).read_text(encoding="utf-8").splitlines())
    for name in release.images():
        versioned, original = f"{name}:{release.version}", f"{name}@sha256:{known[name]}"
        taken = remote(versioned, name)
        if taken not in ("", known[name]):
            raise NotDoneError(f"{versioned} is another image already ({taken}); a version never changes: release the next one")
        docker("pull", "-q", original)
        docker("tag", original, versioned)
        docker("push", "-q", versioned)
        if remote(versioned, name) != known[name]:
            raise NotDoneError(f"{versioned} came out as another image than {original}")
    return f"{release.registry}:{release.version} is {known[release.registry]}"


def remote(image: str, name: str) -> str:
    """Return the digest of an image in the registry, nothing if it is not there."""
    try:
        docker("pull", "-q", image)
    except ToolError as error:
        if re.search(r"manifest unknown|not found", str(error)):
            return ""
        raise
    return digest(image, name)


def publish(release: Release) -> str:
    """Make the release on GitHub: a draft until every file is there."""
    version, state = release.version, gh("release", "view", release.tag, "--json", "isDraft", "--jq", ".isDraft", may_fail=True)
    if state == "false":
        return f"{release.tag} is published already"
    if state == "true":  # of a try that was cut
        gh("release", "delete", release.tag, "--yes")
    attached = [str(path) for path in (*assets(), FOLDER / CHECKSUMS)]
    gh(
        "release",
        "create",
        release.tag,
        "--verify-tag",
        "--draft",
        "--title",
        version,
        "--notes-file",
        str(FOLDER / NOTES),
        *attached,
    )
    gh("release", "edit", release.tag, "--draft=false")
    return f"{release.tag} is published with {len(attached)} files"


def gh(*arguments: str, may_fail: bool = False) -> str:
    """Return what GitHub's command says, nothing if it may fail and does."""
    try:
        result = subprocess.run(["gh", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolError("there is no gh command here; install GitHub's, and log in") from None
    if result.returncode and not may_fail:
        raise ToolError(f"gh {' '.join(arguments[:3])}: {result.stderr.strip()}")
    return "" if result.returncode else result.stdout.strip()


STEPS: dict[str, Callable[[Release], str]] = {
    "check": check, "notes": notes, "images": images, "files": files, "checksums": checksums, "tag": tag, "publish": publish,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    args = parser.parse_args()
    release = Release(*(os.environ.get(name, "") for name in ("RELEASE", "REGISTRY", "TAG")))
    try:
        print(STEPS[args.step](release))
    except NotDoneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (ToolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
