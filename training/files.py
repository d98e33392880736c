"""Files are whole or absent: everything is written to a temporary name first."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from training.errors import UserError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Put `content` at `path`, or leave what was there untouched."""
    data = content.encode() if isinstance(content, str) else content
    replace_atomically(path, lambda temporary: temporary.write_bytes(data))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # a rename that outlives its data would be a torn file after a power cut
        temporary.replace(path)
    except OSError as error:
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
