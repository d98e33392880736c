"""One server: versions come, are asked and go, over TorchServe's management API and its predictions."""

import base64
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from operate.client import UsageError
from operate.errors import NotDoneError
from operate.store import Stored
from serving.management import UNREACHABLE, Management, ManagementError, Version

REGISTER_SECONDS = 150.0  # petclf's supervisor answers when the workers are ready, TorchServe itself at once
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Keys:
    """What a gateway wants to see: NAME:SECRET, for management and for predictions."""

    management: str = ""
    predictions: str = ""
    ca: str | None = None  # the authority of a certificate of one's own


@dataclass(frozen=True)
class Answer:
    """What came back for a known photo."""

    right: bool
    seconds: float
    words: str
    version: str = ""
    unsure: bool = False


class Replica:
    """One TorchServe, bare or behind petclf's supervisor or gateway: the calls are the same."""

    def __init__(self, management: str, inference: str, keys: Keys) -> None:
        self.opener = opener(keys.ca)
        self.management = Management(management, headers_of(keys.management), self.opener)
        self.inference, self.headers = inference, headers_of(keys.predictions)

    def __str__(self) -> str:
        return self.management.address

    def versions(self, model: str) -> dict[str, Version]:
        """Return what is registered of a model; raise UsageError if nobody answers."""
        try:
            return {one.version: one for one in self.management.versions() if one.model == model}
        except UNREACHABLE as error:
            raise UsageError(f"{self} does not answer: {error}; is the server running, and is the key right?") from None

    def bring(self, stored: Stored, workers: int, seconds: float) -> bool:
        """Bring a version, with workers that are ready and answer a known photo right; returns whether it was not there before.

        What was not there before is removed again if that fails.
        """
        archive = stored.archive
        added = archive.version not in self.versions(archive.name)
        try:
            if added:
                self.management.ask(
                    "POST", "/models", REGISTER_SECONDS, url=archive.path.name, initial_workers=workers, synchronous="false"
                )
            self.wait_until_ready(archive.name, archive.version, workers, time.monotonic() + seconds)
            self.require_right(stored)
        except (NotDoneError, *UNREACHABLE) as error:
            left = self.discard(stored) if added or not self.has_live(archive.name, archive.version) else ""
            raise NotDoneError(f"{self}: {archive} is not registered: {error}{left}") from None
        return added

    def fetch_log(self, path: Path) -> Path:
        """Write the prediction log as it is now to this file; a gateway shows it, TorchServe does not."""
        request = urllib.request.Request(f"{self}/prediction-log", headers=self.management.headers)
        try:
            with self.opener.open(request, timeout=REGISTER_SECONDS) as response, path.open("wb") as file:
                shutil.copyfileobj(response, file)
        except OSError as error:
            raise UsageError(f"{self} shows no prediction log: {error}; name the file behind the version") from None
        return path

    def has_live(self, model: str, version: str) -> bool:
        found = self.versions(model).get(version)
        return found is not None and found.live

    def discard(self, stored: Stored) -> str:
        """Remove a version that nobody asks; returns what to add to a reason if it stays."""
        try:
            self.management.ask("DELETE", f"/models/{stored.archive.name}/{stored.archive.version}", REGISTER_SECONDS)
        except UNREACHABLE as error:
            if not (isinstance(error, ManagementError) and error.status == 404):
                return f"; and it cannot be removed: {error}"
        return ""

    def wait_until_ready(self, model: str, version: str, workers: int, end: float) -> None:
        """Wait for all workers; raise as soon as one has ended while it loaded."""
        pids: set[int] = set()
        while True:
            if (found := self.versions(model).get(version)) is None:
                raise NotDoneError("it is not there any more")
            if found.wanted < workers:
                self.management.ask(
                    "PUT", found.path, min_worker=workers, max_worker=workers, synchronous="false"
                )  # a command was killed
            pids |= {pid for pid in found.workers if pid > 0}
            if len(pids) > max(workers, found.wanted):
                raise NotDoneError("a worker ended while it loaded; the server's log has the reason")
            if found.ready >= workers:
                return
            if time.monotonic() > end:
                raise NotDoneError(f"{found.ready} of {workers} workers are ready in time; the server's log has the reason")
            time.sleep(0.1)

    def require_right(self, stored: Stored) -> None:
        answer = self.ask(stored, stored.archive.version)
        if not answer.right:
            raise NotDoneError(f"{self}: {stored.archive} answers its known photo wrong: {answer.words}")

    def ask(self, stored: Stored, version: str = "") -> Answer:
        """Ask about the archive's known photo; without a version, whichever is the default."""
        model = stored.archive.model
        url = f"{self.inference}/predictions/{stored.archive.name}" + (f"/{version}" if version else "")
        request = urllib.request.Request(url, model.photo, {"Content-Type": "image/png", **self.headers})
        begun = time.monotonic()
        try:
            with self.opener.open(request, timeout=ANSWER_SECONDS) as response:
                answer, digest = json.load(response), response.headers.get("x-petclf-archive")
            given, answered, unsure = (
                list(answer["probabilities"].values()),
                str(answer["model"]["version"]),
                bool(answer["unsure"]),
            )
        except urllib.error.HTTPError as error:
            error.close()
            return Answer(False, time.monotonic() - begun, f"status {error.code}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Answer(False, time.monotonic() - begun, str(error) or type(error).__name__)
        seconds = time.monotonic() - begun
        if version and digest not in (None, "", stored.sha256):
            return Answer(False, seconds, f"it is another archive, sha256 {digest[:12]}, under the same version", answered)
        return Answer(model.knows(given), seconds, f"version {answered} says {given}", answered, unsure)

    def set_default(self, model: str, version: str) -> None:
        try:
            self.management.ask("PUT", f"/models/{model}/{version}/set-default")
        except UNREACHABLE as error:
            raise NotDoneError(f"{self}: {model} {version} cannot be made the default: {error}") from None

    def retire(self, model: str, version: str) -> None:
        """Remove a version when everybody who waits for it has been answered."""
        try:
            self.management.remove(model, version)
        except UNREACHABLE as error:
            if not (isinstance(error, ManagementError) and error.status == 404):
                raise NotDoneError(f"{self}: {error}") from None

    def memory(self, model: str, version: str) -> int:
        """Return the bytes that a version's workers take, as TorchServe says."""
        try:
            [found] = self.management.ask("GET", f"/models/{model}/{version}")
            return sum(int(worker["memoryUsage"]) for worker in found["workers"])
        except UNREACHABLE:
            return 0

    def recent(self, model: str, version: str) -> dict[str, Any]:
        """Return what the version's workers say of their last photos, over the management API; empty if they say nothing."""
        try:
            [found] = self.management.ask("GET", f"/models/{model}/{version}", ANSWER_SECONDS, customized="true")
            recent: dict[str, Any] = found["customizedMetadata"]["recent"]
            return recent
        except (TypeError, *UNREACHABLE):
            return {}


def key_in(file: Path | None, variable: str) -> str:
    """Return the key NAME:SECRET, from a file or the environment: other users can read a command line."""
    return file.read_text(encoding="utf-8").strip() if file else os.environ.get(variable, "")


def headers_of(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()} if key else {}


def opener(ca: str | None) -> urllib.request.OpenerDirector:
    """Return what asks a server, whatever http_proxy says."""
    try:
        trusted = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UsageError(f"the certificate {ca} cannot be used: {error.strerror}") from None
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))


def find_replicas(addresses: list[str], keys: Keys) -> list[Replica]:
    """Return a replica for each MANAGEMENT[,INFERENCE]; a name that leads to several machines is all of them."""
    found = []
    for text in addresses:
        management, _, inference = text.partition(",")
        inference = inference or replaced_port(management, 8080)
        for host in machines(management):
            found.append(Replica(with_host(management, host), with_host(inference, host), keys))
    return found


def machines(address: str) -> list[str]:
    """Return the machines that a plain-HTTP name leads to, or the name itself: a certificate is for the name."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--server {address} is no address; write it like http://127.0.0.1:8081 or http://HOST:8081,http://HOST:8080"
        )
    if parts.scheme == "https":
        return [parts.hostname]
    try:
        known = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--server {address}: the name {parts.hostname} leads nowhere ({error.strerror})") from None
    return sorted({str(entry[4][0]) for entry in known})


def with_host(address: str, host: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "") + parts.path.rstrip("/")


def replaced_port(address: str, port: int) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}:{port}"
