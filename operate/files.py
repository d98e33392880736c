"""Files are whole or absent: everything is written to a temporary name first."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put the text at `path`, or leave what was there untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
