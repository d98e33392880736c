"""Where results are kept, and the form that all records share (README.md describes it)."""

import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.machine import describe_machine, git_commit

RESULTS = Path(__file__).parent / "results"


def record_path(theme: str) -> Path:
    """Return today's record of a theme; what belongs to it (.json, .png) has the same name."""
    return RESULTS / f"{time.strftime('%Y-%m-%d')}_{theme}.md"


def write_record(theme: str, title: str, command: str, lines: Iterable[str], note: str = "") -> Path:
    """Write what was measured below its title, command, commit and machine; returns the file."""
    path = record_path(theme)
    origin = f"`{command}`, commit {git_commit()}{f'; {note}' if note else ''}"
    head = [f"# {title}, {path.name[:10]}", "", origin, describe_machine(), ""]
    path.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
    return path
