"""Facts that every recorded result states, and how much memory a server takes."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil


def describe_machine() -> str:
    """Return the machine and the versions in one line: no name, no path."""
    model = next((line.split(":", 1)[1].strip() for line in cpu_info() if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pillow", "numpy", "torchserve"))
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}, {versions}"


def cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def git_commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def pss_of_children(pid: int) -> int:
    """Return the bytes that a process and all below it take; what several share is counted once."""
    everything = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in everything)
