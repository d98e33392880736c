"""A model's life on one server or many: register, promote, roll back, retire. All servers change, or none.

Each command may be killed at any moment and given again: what is done already is seen, and the rest is done. Before anything
changes, live.json says what is live; it is written again when a change is complete, and the history last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from operate import aliases
from operate.client import UsageError
from operate.errors import NotDoneError
from operate.replica import Replica
from operate.store import Store, Stored
from operate.watch import Watch, watch
from serving.live import Live, Release
from serving.management import Version

READY_SECONDS = 90.0  # for a version to become ready


@dataclass(frozen=True)
class Fleet:
    """The servers of one model, and the store that they start from."""

    replicas: Sequence[Replica]
    store: Store
    say: Callable[[str], None] = lambda _: None

    @property
    def model(self) -> str:
        return self.store.model

    # --- what is there

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each version that is in the store or on a server."""
        live, stored = self.store.live(), {one.archive.version: one for one in self.store.all()}
        on_servers = {str(replica): replica.versions(self.model) for replica in self.replicas}
        versions = sorted({*stored, *(name for found in on_servers.values() for name in found)}, key=by_version, reverse=True)
        return [self.row(version, live, stored.get(version), on_servers) for version in versions]

    def row(
        self, version: str, live: Live | None, stored: Stored | None, on_servers: dict[str, dict[str, Version]]
    ) -> dict[str, Any]:
        role = {live.live.version: "live", **({live.previous.version: "previous"} if live.previous else {})} if live else {}
        return {
            "version": version,
            "role": role.get(version, ""),
            "sha256": stored.sha256 if stored else None,
            "servers": {
                name: {"default": one.live, "ready": one.ready, "wanted": one.wanted, "queued": one.queued}
                for name, found in on_servers.items()
                if (one := found.get(version))
            },
        }

    # --- changes

    def register(self, source: Path, workers: int, why: str = "", address: str = "") -> str:
        """Bring an archive to the store and to every server, beside what is live."""
        self.begin()  # without it, a server that restarts would take the archive that came last
        stored, is_new = self.store.add(source)
        done: list[Replica] = []
        try:
            for replica in self.replicas:
                if replica.bring(stored, workers, READY_SECONDS):
                    done.append(replica)
        except (NotDoneError, UsageError) as error:
            left = "".join(replica.discard(stored) for replica in done)
            if is_new:
                stored.archive.path.unlink()
            self.store.tell("refused", stored.archive.version, stored.sha256, why=str(error))
            raise NotDoneError(f"{error}{left}") from None
        if done or is_new or not self.store.knows(stored):
            self.store.tell(
                "register",
                stored.archive.version,
                stored.sha256,
                servers=self.names,
                why=why,
                **({"mlflow": address} if address else {}),
            )
        return f"{stored.archive} is registered on {self.number_of_servers}, each with {workers} workers that are ready"

    def promote(self, version: str, rules: dict[str, float], seconds: float, why: str, figures: dict[str, Any]) -> str:
        """Make a registered version live on every server, watch it, and go back if it does badly."""
        new, (old, _) = self.store.find(version), self.begin()
        if old.live.version == version:
            return self.confirm(self.store.verified(old.live))
        before = {str(replica): replica.recent(self.model, old.live.version) for replica in self.replicas}
        for replica in self.replicas:
            self.require_ready(replica, new)
        self.switch(new, old.live.version)
        self.say(f"{new.archive} answers on {self.number_of_servers}; it is watched for {seconds:g} s")
        if breach := self.watched(new, before, rules, seconds):
            self.switch(self.store.verified(old.live), version)
            self.store.tell(
                "breach", version, new.sha256, **{"from": version, "to": old.live.version}, servers=self.names, why=breach
            )
            raise NotDoneError(f"{new.archive} was rolled back, {old.live.version} is live again: {breach}")
        self.settle(new, old.live, "promote", why, figures)
        return f"{new.archive} is live on {self.number_of_servers}; {old.live.version} stays loaded for a rollback until it is retired"

    def watched(self, new: Stored, before: dict[str, dict[str, Any]], rules: dict[str, float], seconds: float) -> str:
        """Return why the version must go again, nothing if it may stay."""
        try:
            return watch([Watch(one, new, before[str(one)], rules) for one in self.replicas], seconds)
        except KeyboardInterrupt:
            return "the watch was stopped by hand"
        except Exception as error:  # nobody watches any more, whatever the reason is
            return f"the watch failed: {error!r}"

    def rollback(self, workers: int, why: str) -> str:
        """Make what was live before live again, on every server."""
        live, finished = self.begin()
        if finished == "rollback":  # the command was killed before it could tell, and is given again
            return self.confirm(self.store.verified(live.live))
        if live.previous is None:
            raise NotDoneError(
                f"nothing is known to roll back to: no version was live before {live.live.version}, or it was retired"
            )
        target = self.store.verified(live.previous)
        for replica in self.replicas:
            found = replica.versions(self.model).get(target.archive.version)
            if found is None or not found.ready:
                self.say(f"{target.archive} is not loaded on {replica}: it is registered first, which takes some seconds")
                replica.bring(target, workers, READY_SECONDS)
            else:
                replica.require_right(target)
        self.switch(target, live.live.version)
        self.settle(target, live.live, "rollback", why, {})
        return f"{target.archive} is live again on {self.number_of_servers}"

    def retire(self, version: str, why: str) -> str:
        """Take a version that is not live from every server, when all who wait for it have been answered; its archive stays."""
        live, _ = self.begin()
        if version in ("", live.live.version):
            raise NotDoneError(
                f"{self.model} {live.live.version} is live; promote another version first" if version else "name a version"
            )
        for replica in self.replicas:
            if version in replica.versions(self.model):
                replica.retire(self.model, version)
        if live.previous and live.previous.version == version:
            self.store.write_live(replace(live, previous=None))
        known = [entry for entry in self.store.history() if entry["version"] == version]
        if not known or known[-1]["what"] != "retire":
            self.store.tell("retire", version, known[-1]["sha256"] if known else None, servers=self.names, why=why)
        return f"{self.model} {version} is loaded nowhere any more; its archive stays in {self.store.path}"

    # --- the steps

    def begin(self) -> tuple[Live, str]:
        """Return what is live, and which decision a killed command had not told yet; where nobody has decided anything, adopt it."""
        live = self.store.live()
        if live is None:
            return self.adopt(), ""
        decided = self.store.decided()
        if decided and (decided[-1]["version"], decided[-1]["sha256"]) == (live.live.version, live.live.sha256):
            return live, ""
        self.tell_decision(live, "told late: the command was killed")
        return live, live.decision

    def adopt(self) -> Live:
        """Write down as live what the servers answer with."""
        defaults = {one.version for replica in self.replicas for one in replica.versions(self.model).values() if one.live}
        if len(defaults) != 1:
            raise UsageError(
                f"the servers do not agree on what is live: {', '.join(sorted(defaults)) or 'nothing'}; set it on each"
            )
        stored = self.store.find(defaults.pop())
        for replica in self.replicas:
            replica.require_right(stored)
        live = Live(stored.release, None)
        self.store.write_live(live)
        self.tell_decision(live, "it answered when the first command came")
        return live

    def tell_decision(self, live: Live, why: str, **more: Any) -> None:
        before = {"from": live.previous.version, "from_sha256": live.previous.sha256} if live.previous else {}
        self.store.tell(live.decision, live.live.version, live.live.sha256, **before, servers=self.names, why=why, **more)

    def require_ready(self, replica: Replica, stored: Stored) -> None:
        found = replica.versions(self.model).get(stored.archive.version)
        if found is None or found.ready < max(1, found.wanted):
            ready = f"{found.ready} of {found.wanted} workers are ready" if found else "it is not registered"
            raise NotDoneError(f"{replica}: {stored.archive}: {ready}; register it first")
        replica.require_right(stored)

    def switch(self, target: Stored, back: str) -> None:
        """Make a version the default everywhere; where that fails on one server, the others go back."""
        done: list[Replica] = []
        try:
            for replica in self.replicas:
                replica.set_default(self.model, target.archive.version)
                done.append(replica)
        except NotDoneError:
            for replica in done:
                replica.set_default(self.model, back)
            raise

    def settle(self, now: Stored, before: Release, what: str, why: str, figures: dict[str, Any]) -> None:
        """Write down what is live now: first for servers that start, then for those who ask later."""
        live = Live(now.release, before, what)
        self.store.write_live(live)
        self.tell_decision(live, why, figures=figures)
        if told := aliases.move(live, self.store.addresses()):
            self.say(told)

    def confirm(self, stored: Stored) -> str:
        """See to it that every server answers with what is live already: the command was killed before its end, or given twice."""
        for replica in self.replicas:
            self.require_ready(replica, stored)
            replica.set_default(self.model, stored.archive.version)
        return f"{stored.archive} is live on {self.number_of_servers}"

    @property
    def names(self) -> list[str]:
        return [str(replica) for replica in self.replicas]

    @property
    def number_of_servers(self) -> str:
        return "1 server" if len(self.replicas) == 1 else f"{len(self.replicas)} servers"


def by_version(version: str) -> tuple[Any, ...]:
    core, _, extra = version.partition("-")
    return [int(part) if part.isdecimal() else -1 for part in core.split(".")], not extra, extra
