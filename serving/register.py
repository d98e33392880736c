"""A version comes: its archive is checked before TorchServe sees it, and it goes again if it does not become ready."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handler.model_file import Archive
from serving.command import MOST_WORKERS
from serving.management import START_SECONDS, UNREACHABLE, Management, ManagementError
from serving.say import ServeError, say
from serving.store import checked

SECONDS = 20  # for TorchServe to unpack an archive, and to remove it
TAKEN = {
    "url": r"[A-Za-z0-9][A-Za-z0-9_.-]*\.mar",  # a file in the model store
    "initial_workers": "[0-9]{1,4}",
    "synchronous": "true|false",  # TorchServe's clients say it; the answer comes when all is done
}


@dataclass
class Registrar:
    """Registers one version at a time."""

    management: Management
    store: Path
    workers: int
    wait_until_ready: Callable[[list[Archive], int, float], bool]
    candidate: str = ""  # the version that is being registered: the server's health does not depend on it

    def register(self, query: str) -> dict[str, str]:
        """Bring a version to the server as the query asks: it is ready then, or it is not there."""
        asked = parameters(query)
        workers = int(asked.get("initial_workers", self.workers))
        if workers > (most := max(self.workers, MOST_WORKERS)):
            raise ManagementError(400, f"parameter 'initial_workers' must be at most {most} here")
        if not (path := self.store / asked["url"]).is_file():
            raise ManagementError(404, f"there is no {path.name} in the model store")
        archive = checked(path)
        if any(str(one) == str(archive) for one in self.management.versions()):
            raise ManagementError(409, f"{archive} is registered already; remove it, or build the archive with another version")
        self.candidate = str(archive)
        try:
            self.bring(archive, workers)
        finally:
            self.candidate = ""
        say(told := f"{archive} is registered, with {workers} workers that are ready")
        return {"status": told}

    def bring(self, archive: Archive, workers: int) -> None:
        path = f"/models/{archive.name}/{archive.version}"
        try:
            self.management.ask("POST", "/models", SECONDS, url=archive.path.name, initial_workers=0)
            self.management.ask("PUT", path, min_worker=workers, max_worker=workers, synchronous="false")
            if workers and not self.wait_until_ready([archive], workers, START_SECONDS):
                raise ServeError("the server is about to end")
        except (ServeError, *UNREACHABLE) as reason:
            if isinstance(reason, ManagementError) and reason.status == 409:
                raise  # somebody else has just registered it
            say(told := f"{archive} is not registered: {reason or repr(reason)}{self.discard(path)}", level="WARNING")
            raise ServeError(told) from None

    def discard(self, path: str) -> str:
        """Remove a version that was never ready; returns what to add to the reason if it stays."""
        try:
            self.management.ask("DELETE", path, SECONDS)
        except UNREACHABLE as reason:
            if not (isinstance(reason, ManagementError) and reason.status == 404):
                return f"; and it cannot be removed, do so later: {reason!r}"
        return ""


def parameters(query: str) -> dict[str, str]:
    """Return what the query asks; refuse what is not on the list. Nothing is decoded, so that nothing can hide."""
    pairs = [part.partition("=") for part in query.split("&")] if query else []
    for name, _, _ in pairs:
        if name not in TAKEN:
            raise ManagementError(400, f"parameter {name[:64]!r} is not taken here; {', '.join(TAKEN)} are")
    for name, form in TAKEN.items():
        values = [value for other, _, value in pairs if other == name]
        if len(values) > 1 or not all(re.fullmatch(form, value) for value in values):
            raise ManagementError(400, f"parameter {name!r} must be there once and match {form}")
    if not any(name == "url" for name, _, _ in pairs):
        raise ManagementError(400, "parameter 'url' is missing: name an archive of the model store")
    return {name: value for name, _, value in pairs}
