"""Which code and which versions made a result."""

import platform
import subprocess
from importlib import metadata


def git_commit() -> str:
    """Return the commit that trains, marked when the tree differs from it."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


def versions() -> dict[str, str]:
    """Return what the pixels and the numbers depend on."""
    names = ("torch", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
