"""The archives of the model store, checked before TorchServe sees them: it would start without a broken one, and call itself healthy."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from handler.archive_digest import MANIFEST
from handler.model_file import Archive, ModelFileError, read_archive
from serving.management import VERSION_PATH
from serving.say import ServeError

HANDLER = "petclf_handler.py"


def find_archives(store: Path) -> list[Archive]:
    """Return the store's archives, the newest version first: the first of each name becomes TorchServe's default."""
    paths = sorted(store.glob("*.mar"))
    if not paths:
        raise ServeError(f"no archive (*.mar) in {store}; `make archive` builds one")
    archives = sorted((checked(path) for path in paths), key=age, reverse=True)
    seen: dict[str, Path] = {}
    for archive in archives:
        if (twin := seen.setdefault(str(archive), archive.path)) != archive.path:
            raise ServeError(f"{twin} and {archive.path} are both {archive}; remove one, or give it a version")
    return archives


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
