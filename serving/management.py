"""TorchServe's management API, as far as it is needed to look after a server."""

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from serving.machine import DIRECT

SECONDS = 3.0  # for an answer
QUIET = 0.5  # seconds
START_SECONDS = 60  # for a worker to come up
VERSION_PATH = re.compile(r"/models/([A-Za-z0-9][\w.-]{0,63})/([A-Za-z0-9][\w.-]{0,63})", re.ASCII)


class ManagementError(Exception):
    """TorchServe said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


UNREACHABLE = (OSError, ValueError, KeyError, IndexError, ManagementError)


def message_of(body: bytes) -> str:
    """Return what an error says; TorchServe's, the supervisor's and the gateway's shapes differ, and a worker's may be anything."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(body)
        return str(content.get("error", content)["message"]) if isinstance(content, dict) else ""
    return ""


@dataclass(frozen=True)
class Version:
    """One version of a model, as TorchServe describes it."""

    model: str
    version: str
    url: str
    live: bool  # TorchServe's default: what a request without a version asks
    wanted: int
    workers: dict[int, bool]  # by pid: is it ready?
    queued: int

    def __str__(self) -> str:
        return f"{self.model} {self.version}"

    @property
    def path(self) -> str:
        return f"/models/{self.model}/{self.version}"

    @property
    def ready(self) -> int:
        return sum(self.workers.values())


class Management:
    """One TorchServe's port 8081, or what stands in front of it."""

    def __init__(
        self, address: str, headers: dict[str, str] | None = None, opener: urllib.request.OpenerDirector = DIRECT
    ) -> None:
        self.address, self.headers, self.opener = address, headers or {}, opener

    def ask(self, method: str, path: str, seconds: float = SECONDS, **parameters: Any) -> Any:
        url = f"{self.address}{quote(path)}" + (f"?{urlencode(parameters)}" if parameters else "")
        try:
            with self.opener.open(urllib.request.Request(url, headers=self.headers, method=method), timeout=seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ManagementError(error.code, message_of(error.read()) or error.reason) from None

    def versions(self) -> Iterator[Version]:
        for model in self.ask("GET", "/models")["models"]:
            name = model["modelName"]
            live = self.ask("GET", f"/models/{name}")[0]["modelVersion"]
            for found in self.ask("GET", f"/models/{name}/all"):
                workers = {worker["pid"]: worker["status"] == "READY" for worker in found["workers"]}
                queued = found["jobQueueStatus"]["pendingRequests"]
                version = found["modelVersion"]
                yield Version(name, version, found["modelUrl"], version == live, found["minWorkers"], workers, queued)

    def start_one(self, version: Version) -> None:
        """Give a version one worker, without waiting for it."""
        self.ask("PUT", f"/models/{version.model}/{version.version}", min_worker=1, max_worker=1, synchronous="false")

    def scale(self, version: Version, workers: int, seconds: float = START_SECONDS) -> None:
        """Give a version so many workers, and wait for them here: where TorchServe waits, it answers nobody meanwhile."""
        self.ask("PUT", version.path, min_worker=workers, max_worker=workers, synchronous="false")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.ask("GET", version.path)[0]["workers"]
            if len(found) == workers and all(worker["status"] == "READY" for worker in found):
                return
            time.sleep(0.05)
        raise ManagementError(504, f"{version} did not get {workers} workers within {seconds:.0f} s")

    def queued(self, version: Version) -> int:
        waiting: int = self.ask("GET", version.path)[0]["jobQueueStatus"]["pendingRequests"]
        return waiting

    def wait_for_queue(self, version: Version, end: float) -> None:
        """Wait until nothing has been queued for a moment, in which workers may finish what they have in their hands."""
        last = time.monotonic()
        while time.monotonic() < min(end, last + QUIET):
            last = time.monotonic() if self.queued(version) else last
            time.sleep(0.05)

    def drain(self, version: Version, seconds: float = START_SECONDS) -> None:
        """Take the last worker from a version such that nobody waits for it any more.

        TorchServe puts what a worker had in its hands back into the queue when it takes that worker away, and refuses new
        requests once there is none. So an empty queue then means that everybody has been answered; otherwise a worker comes
        back, answers, and goes again.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.scale(version, 0)
            if not self.queued(version):
                return
            self.scale(version, 1, max(1.0, end - time.monotonic()))
            self.wait_for_queue(version, end)
        raise ManagementError(409, f"{version} is asked all the time; make another version the default first")

    def remove(self, model: str, name: str) -> Any:
        """Drain a version and unregister it; TorchServe itself would leave whoever waits for it without an answer."""
        versions = {one.version: one for one in self.versions() if one.model == model}
        if (version := versions.get(name)) is None:
            raise ManagementError(404, f"there is no {model} {name}")
        if version.live and len(versions) > 1:
            raise ManagementError(409, f"{version} is live; make another version the default first")
        self.wait_for_queue(version, time.monotonic() + SECONDS)  # or a worker would have to start again for it
        self.drain(version)
        return self.ask("DELETE", version.path, START_SECONDS)
