"""Files are whole or absent: everything is written to a temporary name first. And one at a time may change some."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from operate.client import UsageError


def write_whole(path: Path, content: str | bytes) -> None:
    """Put the content at `path`, or leave what was there untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, taken: str, inherited: bool = False) -> Iterator[None]:
    """Hold the lock of this file, or raise with the text `taken`; a lock ends with the last process that holds it.

    With `inherited`, processes that are started with close_fds=False hold it too: killing their parent does not end them.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(file, inherited)
        yield
    except BlockingIOError:
        raise UsageError(taken) from None
    finally:
        os.close(file)
