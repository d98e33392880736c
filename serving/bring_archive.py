"""Bring one archive into the model store, if its bytes are the very ones that were asked for: what an init container does.

PETCLF_ARCHIVE says where it is: a file, or an https address. PETCLF_ARCHIVE_SHA256 says what it is: the sha256 of the whole file.
The store is the first argument. The server finds petclf-VERSION.mar there.
"""

import argparse
import contextlib
import hashlib
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from serving.say import ServeError, say
from serving.store import checked

SECONDS = 30  # without a byte
MOST_BYTES = 1 << 30
PIECE = 1 << 20


def bring(source: str, digest: str, store: Path) -> Path:
    """Return the archive in the store; nothing is left there unless it is whole and the right one."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ServeError(f"PETCLF_ARCHIVE_SHA256 is {digest!r}; write the 64 digits that `sha256sum ARCHIVE` prints")
    incoming = store / ".incoming"
    try:
        with opened(source) as reader, incoming.open("wb") as writer:
            found = copied(reader, writer)
        if found != digest:
            raise ServeError(f"{source} is not what was asked for: its sha256 is {found}, PETCLF_ARCHIVE_SHA256 says {digest}")
        archive = checked(incoming)
        return incoming.replace(store / f"{archive.name}-{archive.version}.mar")
    except OSError as error:
        raise ServeError(f"{source} cannot be brought into {store}: {error}") from None
    finally:
        incoming.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    if source.startswith("https://"):
        with urllib.request.urlopen(source, timeout=SECONDS) as response:
            yield response
    elif "://" in source or not source:
        raise ServeError(f"PETCLF_ARCHIVE is {source!r}; write a file's path, or an address that begins with https://")
    else:
        with Path(source).open("rb") as file:
            yield file


def copied(reader: BinaryIO, writer: BinaryIO) -> str:
    """Copy everything; returns its sha256."""
    digest, size = hashlib.sha256(), 0
    while piece := reader.read(PIECE):
        size += len(piece)
        if size > MOST_BYTES:
            raise ServeError(f"it has more than {MOST_BYTES:,} bytes, which no archive has")
        digest.update(piece)
        writer.write(piece)
    return digest.hexdigest()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="folder that the archive comes into")
    store: Path = parser.parse_args(argv).store
    setting = os.environ.get
    try:
        path = bring(setting("PETCLF_ARCHIVE", ""), setting("PETCLF_ARCHIVE_SHA256", ""), store)
    except ServeError as error:
        say(f"the archive cannot be used: {error}", "bring_archive", "ERROR")
        sys.exit(2)
    say(f"{path.name} is in place", "bring_archive")


if __name__ == "__main__":
    main()
