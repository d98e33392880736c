"""Facts that every recorded result states, and how much memory a server takes."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")  # what int8 convolutions may use


def describe_machine() -> str:
    """Return the machine and the versions in one line: no name, no path."""
    flags = fact("flags").split()
    model = ", ".join([fact("model name") or platform.machine(), *(name for name in INSTRUCTIONS if name in flags)])
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pillow", "numpy", "torchserve"))
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}, {versions}"


def fact(name: str) -> str:
    """Return what the system says of its first core under this name; nothing where it does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def git_commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def pss_of_children(pid: int) -> int:
    """Return the bytes that a process and all below it take; what several share is counted once."""
    everything = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in everything)
