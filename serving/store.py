"""The archives of the model store, checked before TorchServe sees them: it would start without a broken one, and call itself healthy.

`python -m serving.store` prints the file of the archive that a server of the store begins with.
"""

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from handler.archive_digest import MANIFEST, sha256
from handler.model_file import Archive, ModelFileError, read_archive
from serving.live import FILE, Release, read_live
from serving.management import VERSION_PATH
from serving.say import ServeError

HANDLER = "petclf_handler.py"


def find_archives(store: Path, previous: bool = False) -> list[Archive]:
    """Return what a server of this store begins with, and with `previous` also what was live before.

    Of each model comes first what is live, for the first of a name becomes TorchServe's default: what live.json says, or, where
    nobody has promoted anything, the archive that came last.
    """
    if not (lives := read_live(store)):
        return latest(store)
    wanted = [one for live in lives.values() for one in (live.live, live.previous if previous else None) if one]
    return [promoted(store, one) for one in wanted]


def latest(store: Path) -> list[Archive]:
    """Return of each model the archive that was built or copied last, for that is the one that somebody wants to see."""
    paths = sorted(store.glob("*.mar"))
    if not paths:
        raise ServeError(f"no archive (*.mar) in {store}; `make archive` builds one")
    seen: dict[str, Archive] = {}
    for archive in map(checked, paths):
        if (twin := seen.setdefault(str(archive), archive)) is not archive:
            raise ServeError(f"{twin.path} and {archive.path} are both {archive}; remove one, or give it a version")
    by_time = sorted(seen.values(), key=lambda archive: (archive.path.stat().st_mtime_ns, age(archive)))
    return list({archive.name: archive for archive in by_time}.values())


def promoted(store: Path, release: Release) -> Archive:
    """Return the archive that live.json names; raise unless it is there with the very bytes that were promoted."""
    path = store / release.archive
    if not path.is_file():
        raise ServeError(f"{store / FILE} names {release.archive}, which is not in the store; put it back, or remove {FILE}")
    if (digest := sha256(path)) != release.sha256:
        raise ServeError(
            f"{path} is not what was promoted: its sha256 is {digest[:12]}, {FILE} says {release.sha256[:12]}; restore it, or remove {FILE}"
        )
    return checked(path)


def checked(path: Path) -> Archive:
    """Return what an archive holds; raise unless it is whole and one of petclf's."""
    try:
        archive = read_archive(path)
        with zipfile.ZipFile(path) as packed:
            handler = json.loads(packed.read(MANIFEST))["model"].get("handler")
        if handler != HANDLER:
            raise ModelFileError(f"names another handler: {str(handler)[:64]!r}")
        if not VERSION_PATH.fullmatch(f"/models/{archive.name}/{archive.version}"):
            raise ModelFileError(f"holds {archive}, a name or a version that no address can have")
        return archive
    except ModelFileError as error:
        raise ServeError(f"{path} {error}; build it again with `make archive`") from None
    except Exception as error:  # zipfile and zlib raise a dozen kinds on a broken file
        raise ServeError(f"{path} cannot be read: {error!r}") from None


def age(archive: Archive) -> tuple[Any, ...]:
    """Sort 1.10.0 behind 1.9.0, and 1.0.0-rc1 before 1.0.0."""
    core, _, extra = archive.version.partition("-")
    return ([int(part) for part in re.findall(r"\d+", core)], not extra, extra)


if __name__ == "__main__":
    try:
        print(find_archives(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store"))[0].path.name)
    except ServeError as error:
        sys.exit(f"error: {error}")
