"""A compose stack, and a client that asks it all the time."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.drawing import draw_photo, encoded

ROOT = Path(__file__).parents[2]
PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=95)


def docker(*arguments: str, check: bool = True, environment: dict[str, str] | None = None, timeout: float = 300) -> str:
    result = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    assert not check or result.returncode == 0, f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


def engine_is_missing() -> str:
    if shutil.which("docker") is None:
        return "no docker here; install Docker to run the container tests"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker engine is running here; start it to run the container tests"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return "docker compose is not installed here"
    for image in ("python:3.11-slim-bookworm", "debian:bookworm-slim"):
        known = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0
        if (
            not known
            and subprocess.run(["docker", "pull", "-q", image], capture_output=True, check=False, timeout=300).returncode
        ):
            return f"the base image {image} can be had neither here nor from its registry"
    return ""


MISSING = engine_is_missing()


@dataclass
class Stack:
    """The compose stack of the tests, beside whatever else runs here."""

    url: str
    management: str
    key: tuple[str, str]
    settings: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> str:
        return docker("compose", *arguments, check=check, environment=self.settings)

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service)

    def pid(self, service: str) -> int:
        return int(docker("inspect", "-f", "{{.State.Pid}}", self.container(service)))

    def is_well(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.post(f"{self.url}/predict", PHOTO, timeout=5).status_code == 200
        return False

    def wait_until_well(self, seconds: float = 60) -> float:
        started = time.monotonic()
        while not self.is_well():
            assert time.monotonic() - started < seconds, "the stack did not heal"
            time.sleep(0.2)
        return time.monotonic() - started


class Load:
    """Requests all the time, and what became of them."""

    def __init__(self, stack: Stack, threads: int = 4, pause: float = 0) -> None:
        self.pause = pause
        self.statuses: Counter[int] = Counter()
        self.odd: list[str] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(stack,)) for _ in range(threads)]

    def ask(self, stack: Stack) -> None:
        with requests.Session() as session:
            while not self.stop.is_set():
                try:
                    answer = session.post(f"{stack.url}/predict", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=20)
                except requests.RequestException as error:
                    self.odd.append(repr(error))
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 503:
                    if answer.json()["error"]["code"] != "busy" or "Retry-After" not in answer.headers:
                        self.odd.append(answer.text)
                    time.sleep(0.05)
                time.sleep(self.pause)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
