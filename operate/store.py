"""The model store on disk, for those who change it: archives that never change, live.json, and the history of both."""

import contextlib
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from handler.archive_digest import PROVENANCE, sha256
from handler.model_file import Archive
from operate.client import UsageError
from operate.errors import NotDoneError
from operate.files import locked
from serving import live
from serving.live import Live, Release
from serving.say import ServeError
from serving.store import checked

HISTORY = "history.jsonl"
DECIDES = ("promote", "rollback", "adopt")  # what changes which version is live


@dataclass(frozen=True)
class Stored:
    """An archive of the store, and its digest."""

    archive: Archive
    sha256: str

    @property
    def release(self) -> Release:
        return Release(self.archive.version, self.archive.path.name, self.sha256, now())


@dataclass(frozen=True)
class Store:
    """One model in a folder of archives."""

    path: Path
    model: str

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Let nobody else change the store meanwhile."""
        return locked(self.path / ".lock", f"another command is changing {self.path}; try again when it has ended")

    def stored(self, path: Path) -> Stored:
        """Return an archive that is whole, is this model's, and whose files are those that its provenance names."""
        try:
            archive = checked(path)
        except ServeError as error:
            raise NotDoneError(str(error)) from None
        if archive.name != self.model:
            raise NotDoneError(f"{path} holds {archive}, not {self.model}; name its model with --model")
        if wrong := files_unlike_their_provenance(path):
            raise NotDoneError(f"{path}: {wrong[0]} is not what {PROVENANCE} says; build it again with `make archive`")
        return Stored(archive, sha256(path))

    def find(self, version: str) -> Stored:
        """Return a version of the store, whatever its file is called."""
        usual = self.path / f"{self.model}-{version}.mar"
        for path in [usual] if usual.is_file() else sorted(self.path.glob("*.mar")):
            with contextlib.suppress(NotDoneError):
                if (found := self.stored(path)).archive.version == version:
                    return found
        if usual.is_file():
            return self.stored(usual)  # raises with the reason
        raise UsageError(f"there is no {self.model} {version} in {self.path}; `register` brings one")

    def add(self, source: Path) -> tuple[Stored, bool]:
        """Copy an archive into the store unless it is there; returns it, and whether it is new there."""
        if not source.is_file():
            raise UsageError(f"no archive at {source}")
        new = self.stored(source)
        target = self.path / f"{self.model}-{new.archive.version}.mar"
        present = next((one for one in self.all() if one.archive.version == new.archive.version), None)
        if present and present.sha256 != new.sha256:
            raise NotDoneError(
                f"{present.archive.path} is {new.archive}, too, with other bytes; give the new one another version"
            )
        if present:
            return present, False
        write_durably(source.read_bytes(), target)
        return Stored(replace(new.archive, path=target), new.sha256), True

    def all(self) -> list[Stored]:
        found = []
        for path in sorted(self.path.glob("*.mar")):
            with contextlib.suppress(NotDoneError):  # a broken one, or another model's, hinders nobody
                found.append(self.stored(path))
        return found

    # --- live.json

    def live(self) -> Live | None:
        try:
            return live.read_live(self.path).get(self.model)
        except ServeError as error:
            raise UsageError(str(error)) from None

    def write_live(self, new: Live) -> None:
        write_durably(live.as_json({**live.read_live(self.path), self.model: new}), self.path / live.FILE)

    def verified(self, release: Release) -> Stored:
        """Return the archive of a release; refuse one whose bytes are not those that were promoted."""
        path = self.path / release.archive
        if not path.is_file():
            raise NotDoneError(f"{path} is gone; put it back, sha256 {release.sha256}")
        found = self.stored(path)
        if found.sha256 != release.sha256:
            raise NotDoneError(f"{path} is not what was live: its sha256 is {found.sha256[:12]}, not {release.sha256[:12]}")
        return found

    # --- history

    def history(self) -> list[dict[str, Any]]:
        """Return every entry of this model; a last line that was cut off by a power failure is left out."""
        try:
            lines = (self.path / HISTORY).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return [entry for entry in entries if entry.get("model") == self.model]

    def tell(self, what: str, version: str, sha256: str | None, **more: Any) -> None:
        """Append to the history, on disk when this returns."""
        entry = {"time": now(), "what": what, "model": self.model, "version": version, "sha256": sha256, **more}
        path = self.path / HISTORY
        begun = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if begun else "") + json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def decided(self) -> list[dict[str, Any]]:
        """Return what has changed which version is live."""
        return [entry for entry in self.history() if entry["what"] in DECIDES]

    def addresses(self) -> dict[str, str]:
        """Return, by sha256, where in MLflow an archive's model came from."""
        return {entry["sha256"]: entry["mlflow"] for entry in self.history() if entry.get("mlflow")}

    def knows(self, stored: Stored) -> bool:
        """Tell whether the history has this archive as one that is loaded."""
        told = [entry["what"] for entry in self.history() if entry["sha256"] == stored.sha256]
        return bool(told) and told[-1] not in ("refused", "retire")

    def live_at(self, moment: datetime) -> dict[str, Any] | None:
        """Return the decision that was in force at a moment."""
        return next((entry for entry in reversed(self.decided()) if datetime.fromisoformat(entry["time"]) <= moment), None)


def files_unlike_their_provenance(path: Path) -> list[str]:
    """Return the files of an archive that are missing in its provenance, or differ from it."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
        try:
            digests: dict[str, str] = json.loads(packed.read(PROVENANCE))["files"]
        except (KeyError, ValueError, TypeError):
            return [PROVENANCE]
        names = {name for name in packed.namelist() if name not in (PROVENANCE, "MAR-INF/MANIFEST.json")}
        wrong = [name for name in names & set(digests) if hashlib.sha256(packed.read(name)).hexdigest() != digests[name]]
    return sorted(wrong + list(names ^ set(digests)))


def write_durably(data: bytes, path: Path) -> None:
    """Write whole or not at all, and on disk when this returns."""
    temporary = path.with_name(f".{path.name}.tmp")  # the store is locked, so nobody else writes it
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
