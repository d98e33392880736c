"""An image as it lies on disk: its files, read one after the other, without running anything of it."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ToolError(Exception):
    """Something that whoever runs the tool can put right."""


def docker(*arguments: str) -> str:
    """Return what a docker command prints."""
    try:
        result = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolError("there is no docker command here; install Docker") from None
    if result.returncode:
        raise ToolError(f"docker {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip()


def described(image: str) -> dict[str, Any]:
    """Return what Docker knows of an image."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


@contextmanager
def opened(image: str) -> Iterator[tarfile.TarFile]:
    """Open an image's file system as a stream: each file can be read when its turn comes."""
    container = docker("create", image, "-")  # a command that is never run; an image may come without one
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            with tarfile.open(fileobj=export.stdout, mode="r|") as files:
                yield files
        if export.returncode:
            raise ToolError(f"docker export of {image} ended with {export.returncode}")
    finally:
        docker("rm", container)
