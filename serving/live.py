"""live.json in the model store: which version of each model is live, and which was before it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.say import ServeError

FILE = "live.json"
FORMAT = 1


@dataclass(frozen=True)
class Release:
    """An archive that is live, or was."""

    version: str
    archive: str  # its file in the model store
    sha256: str
    since: str  # when it became live


@dataclass(frozen=True)
class Live:
    """What a model's servers start with."""

    live: Release
    previous: Release | None  # where a rollback leads; none once it has been retired
    decision: str = "adopt"  # what made it live: adopt, promote, rollback


def read_live(store: Path) -> dict[str, Live]:
    """Return what is live, by the model's name; nothing where nobody has ever promoted a version."""
    path = store / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not known here")
        return {
            name: Live(release(entry["live"]), optional(entry["previous"]), entry["decision"])
            for name, entry in content["models"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServeError(
            f"{path} cannot be read: {error!r}; restore it, or remove it: then the archive that came last is live"
        ) from None


def release(entry: dict[str, Any]) -> Release:
    found = Release(**entry)
    if not all(isinstance(value, str) for value in asdict(found).values()) or Path(found.archive).name != found.archive:
        raise ValueError(f"{entry} names no archive of the model store")
    return found


def optional(entry: dict[str, Any] | None) -> Release | None:
    return None if entry is None else release(entry)


def as_json(models: dict[str, Live]) -> bytes:
    content = {"format": FORMAT, "models": {name: asdict(live) for name, live in sorted(models.items())}}
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
