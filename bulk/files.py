"""The folder that a run writes to, on a disk or in a bucket: a file is whole or absent."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from bulk.errors import BulkError, FailedError


def is_url(address: str) -> bool:
    return "://" in address


def open_url(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path there, or say what is missing."""
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise BulkError(f"{address} cannot be opened: {error}") from None
    except ValueError as error:
        raise BulkError(f"{address} is no address that can be opened: {error}") from None


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Say in one line why a bucket cannot be used: every store's library raises kinds of its own."""
    try:
        yield
    except (BulkError, FailedError, OSError):
        raise
    except Exception as error:
        if not is_url(address):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise BulkError(f"{address} cannot be used: {type(error).__name__}: {reason}") from None


@dataclass
class Output:
    """Files by their name, such as answers/part-00000.parquet. Travels to the workers as its address alone."""

    address: str
    fs: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.address = self.address if is_url(self.address) else str(Path(self.address).absolute())
        self.fs, self.root = open_url(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Output, (self.address,))

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""
        self.fs.invalidate_cache()
        try:
            return sorted(str(path).rsplit("/", 1)[-1] for path in self.fs.ls(self.path(folder), detail=False))
        except FileNotFoundError:
            return []

    def exists(self, name: str) -> bool:
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def open(self, name: str) -> BinaryIO:
        return self.fs.open(self.path(name), "rb")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Put the whole file there at once: a bucket does so by itself, a disk by renaming, and on disk when this returns."""
        if "file" not in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)):
            self.fs.pipe_file(self.path(name), content)
            return
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def tidy(self, folder: str) -> None:
        """Remove what killed processes left: half a file, or a mark."""
        for name in self.names(folder):
            if name.startswith("."):
                self.remove(f"{folder}/{name}")
