"""What the supervisor says: one JSON object a line, its own words and TorchServe's alike."""

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import IO

BEGINS = re.compile(r"Traceback \(most recent call last\):|During handling of|The above exception")
GOES_ON = re.compile(r"\s|Traceback \(|During handling of|The above exception")  # a traceback's last line begins with a name


class ServeError(Exception):
    """Something the user can put right, or the reason why the server ended."""


def say(text: str, logger: str = "serve", level: str = "INFO") -> None:
    write(entry_of(text, logger, level))


def write(entry: dict[str, str]) -> None:
    print(json.dumps(entry, ensure_ascii=False), flush=True)


def entry_of(text: str, logger: str, level: str) -> dict[str, str]:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return {"time": now, "level": level, "logger": logger, "message": text}


class Log:
    """TorchServe's output on its way to ours: plain text becomes JSON, and a traceback one object instead of one a line."""

    def __init__(self) -> None:
        self.last_line = "none"
        self.last_error = ""
        self.tracebacks: dict[str, list[str]] = {}  # what has come of each, by the thread that logs it

    @property
    def last_words(self) -> str:
        return self.last_error or self.last_line

    def pass_on(self, lines: IO[bytes]) -> None:
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                for entry in self.joined(to_entry(text)):
                    self.last_line = entry["message"]
                    write(entry)

    def joined(self, entry: dict[str, str]) -> Iterator[dict[str, str]]:
        """Yield the entry, or nothing until a traceback is whole: TorchServe logs what a worker prints line by line."""
        thread, message = entry.pop("thread", ""), entry["message"].rstrip()
        so_far = self.tracebacks.setdefault(thread, [])
        if so_far or BEGINS.match(message):
            so_far.append(message)
            if not message or GOES_ON.match(message):
                return
            if so_far[0].startswith("Traceback"):  # what follows "During handling of" is a consequence
                self.last_error = message
            whole = " | ".join(line for line in so_far if line)
            so_far.clear()
            yield {**entry, "level": "ERROR", "message": whole}
        elif message:
            yield {**entry, "message": message}


def to_entry(text: str) -> dict[str, str]:
    """Return a line of the log as an object, whoever wrote it."""
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            entry: dict[str, str] = json.loads(text)
            if isinstance(entry.get("message"), str):
                return entry
    return entry_of(text, "java", "INFO")
