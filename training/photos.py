"""Where photos lie: folders, or zip files that are read in place and never unpacked."""

import os
import zipfile
from functools import lru_cache
from pathlib import Path

from training.errors import UserError


def list_files(root: Path) -> list[str]:
    """Return every file under a folder or in a zip, relative to it, sorted; hidden ones are left out."""
    if root.is_dir():
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    elif root.is_file():
        names = [entry.filename for entry in open_zip(root).infolist() if not entry.is_dir()]
    else:
        raise UserError(f"no photos at {root}: give a folder or a zip file")
    return sorted(name for name in names if not hidden(name))


def hidden(name: str) -> bool:
    """Dot files, and what macOS and Windows leave beside photos."""
    parts = name.split("/")
    return any(part.startswith((".", "__MACOSX")) for part in parts) or parts[-1] in ("Thumbs.db", "desktop.ini")


def read_bytes(path: str) -> bytes:
    """Return a file's bytes; `path` may lead into a zip: photos.zip/cat/1.jpg."""
    file = Path(path)
    if file.is_file():
        return file.read_bytes()
    for parent in file.parents:
        if parent.is_file():
            return open_zip(parent).read(file.relative_to(parent).as_posix())
    raise FileNotFoundError(f"no file at {path}")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip once a process: forked ones would share, and move, one reading position."""
    return open_zip_of(path, os.getpid())


@lru_cache(maxsize=4)
def open_zip_of(path: Path, process: int) -> zipfile.ZipFile:  # noqa: ARG001  (part of the key)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"cannot read {path} as a zip file: {error}") from None
