"""After a switch: is the new version well? Asked of the servers themselves, for as long as it is watched."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operate.gate import divided, number
from operate.replica import Replica
from operate.store import Stored

PAUSE = 0.5  # seconds between two looks


@dataclass
class Watch:
    """Looks at one replica; `before` is what the version before said of its last photos."""

    replica: Replica
    stored: Stored
    before: Mapping[str, Any]
    rules: Mapping[str, float]
    looks: list[dict[str, float]] = field(
        default_factory=list
    )  # what had been counted at each look; the first is before the switch
    bad_answers: int = 0
    own: int = 0  # photos that the watch itself has sent: they are no user's
    own_unsure: int = 0

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        counted = self.replica.recent(self.stored.archive.name, self.stored.archive.version).get("counted", {})
        look = {name: number(counted, name) for name in ("photos", "unsure", "failed", "seconds")}
        if not any(map(math.isnan, look.values())):  # the workers may be too busy to say anything
            self.looks.append(look | {"users": look["photos"] - self.own, "unsure": look["unsure"] - self.own_unsure})

    def breach(self) -> str:
        """Look once; return what is wrong, nothing if all is well."""
        if reason := self.known_photo():
            return reason
        self.look()
        return judge(self.before, self.change(), self.rules) if self.looks else ""

    def change(self) -> dict[str, float]:
        """Return what has been counted since the last look after which there were enough users, so that a change shows soon."""
        now = self.looks[-1]
        enough = (look for look in reversed(self.looks) if now["users"] - look["users"] >= self.rules["photos_at_least"])
        then = next(enough, self.looks[0])
        return {name: now[name] - then[name] for name in now}

    def known_photo(self) -> str:
        """Ask about the known photo; return what is wrong if that went badly several times in a row."""
        answer = self.replica.ask(self.stored)
        if answer.version == self.stored.archive.version:
            self.own += 1
            self.own_unsure += answer.unsure
        well = answer.right and answer.seconds <= self.rules["known_photo_seconds_at_most"]
        self.bad_answers = 0 if well else self.bad_answers + 1
        if self.bad_answers <= self.rules["known_photo_failures_at_most"]:
            return ""
        took = f"{answer.words}, {answer.seconds:.1f} s"
        return f"{self.replica}: {self.bad_answers} answers in a row to the known photo are wrong or late: {took}"


def judge(before: Mapping[str, Any], change: Mapping[str, float], rules: Mapping[str, float]) -> str:
    """Return what is wrong with a version by what its workers have counted lately; nothing if all is well."""
    failed, users = change["failed"], change["users"]
    if failed >= rules["failures_at_least"] and failed / (failed + max(0.0, users)) > rules["failed_share_at_most"]:
        return f"{failed:.0f} of {failed + users:.0f} photos could not be answered"
    if not users >= rules["photos_at_least"]:
        return ""
    unsure, usual = change["unsure"] / users, divided(number(before, "unsure"), number(before, "predictions"))
    if unsure - usual > rules["unsure_rise_at_most"]:
        return f"it is unsure of {unsure:.0%} of {users:.0f} photos; the version before was of {usual:.0%}"
    old, new = number(before, "mean_milliseconds"), 1000 * divided(change["seconds"], change["photos"])
    if divided(new, old) > rules["milliseconds_ratio_at_most"] and new - old > rules["milliseconds_rise_at_most"]:
        return f"a photo takes {new:.0f} ms; with the version before it took {old:.0f} ms"
    return ""


def watch(watches: Sequence[Watch], seconds: float) -> str:
    """Return the first breach, or nothing when the time is over."""
    end = time.monotonic() + seconds
    while True:
        for one in watches:
            if reason := one.breach():
                return reason
        if time.monotonic() >= end:
            return ""
        time.sleep(min(PAUSE, max(0.0, end - time.monotonic())))
