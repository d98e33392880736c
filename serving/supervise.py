"""One TorchServe from start to end: ready only when a known photo is answered right, ended when it cannot answer any more."""

import argparse
import contextlib
import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from types import FrameType

from handler.archive_digest import sha256
from handler.model_file import Archive
from serving.command import command, environment, number_of_workers
from serving.endpoint import start_endpoint
from serving.health import Health
from serving.machine import die_with_parent, killed_for_memory, open_here, private_folder, reachable
from serving.management import UNREACHABLE, Management, Version
from serving.register import Registrar
from serving.say import Log, ServeError, say
from serving.store import find_archives

LOOK_SECONDS = 1.0
STUCK_SECONDS = 8.0  # a server that cannot answer is ended if somebody waits; a worker that hangs is found after 5 more
DEAD_SECONDS = 60.0  # the same where nobody waits
SILENT_SECONDS = 30.0  # so long Java may say nothing at all; it does so while it registers a model with synchronous=true


class Supervisor:
    """Starts Java, looks after it, and ends it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.workers = number_of_workers(args)
        self.store: Path = args.model_store.resolve()
        self.archives = find_archives(self.store, args.previous)
        self.inference = f"http://{reachable(args.host)}:{args.port}"
        self.management = Management(f"http://{reachable(args.management_host)}:{args.management_port}")
        self.registrar = Registrar(self.management, self.store, self.workers, self.wait_until_ready)
        self.log = Log()
        self.stopping: int | None = None
        self.phase = "starting"
        self.folder = Path()
        self.digests: dict[str, str] = {}
        self.given_up: set[str] = set()  # versions that cannot start

    def run(self) -> int:
        """Start, wait until ready, stay until the end; returns the exit code."""
        with private_folder() as self.folder:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.ask_to_stop)
            if self.args.ready_port:
                start_endpoint(self.args.ready_host, self.args.ready_port, self.look, self.management, self.registrar)
            started = time.monotonic()
            self.process = subprocess.Popen(
                command(self.args, self.archives, self.folder), env=environment(self.args, self.folder), cwd=self.folder,
                preexec_fn=die_with_parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert self.process.stdout is not None
            threading.Thread(target=self.log.pass_on, args=(self.process.stdout,), daemon=True).start()
            try:
                if self.wait_until_ready(self.archives, self.workers, self.args.ready_seconds):
                    self.phase = "serving"
                    self.say_ready(time.monotonic() - started)
                    self.stay()
                    self.drain()
            except ServeError:
                self.process.kill()  # whoever waits for an answer is let go at once
                raise
            finally:
                code = self.end()
        if self.stopping is None:
            raise ServeError(f"TorchServe ended by itself with exit code {code}; its last words: {self.log.last_words}")
        say("stopped")
        return 0

    def ask_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = number
        self.phase = "draining"

    def look(self) -> Health:
        """Return what state the server is in, asked from TorchServe now."""
        try:
            versions = [one for one in self.management.versions() if str(one) != self.registrar.candidate]
        except UNREACHABLE:
            return Health(self.phase, folder=self.folder, reached=False)
        self.digests = {str(one): self.digest(one) for one in versions}  # one that went may come back with another archive
        return Health(self.phase, versions, self.digests, self.folder)

    def digest(self, version: Version) -> str:
        """Return the sha256 of a version's archive, empty if it is not in the store."""
        if (known := self.digests.get(str(version))) is not None:
            return known
        path = self.store / Path(version.url).name
        return sha256(path) if path.is_file() else ""

    def wait_until_ready(self, archives: list[Archive], workers: int, seconds: float) -> bool:
        """Return whether these versions became ready, not so if the server is told to end; raise when they cannot."""
        (self.folder / "failed").unlink(missing_ok=True)  # what failed before is no reason
        self.log.last_error, self.killed_before = "", killed_for_memory()
        self.pids: defaultdict[str, set[int]] = defaultdict(set)  # the workers that each has had meanwhile
        reason = "no worker came up"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.stopping is not None:
                return False
            self.require_alive()
            with contextlib.suppress(*UNREACHABLE):  # it does not listen yet
                reason = self.what_is_missing(archives, workers)
                if not reason:
                    return True
            time.sleep(0.05)
        raise ServeError(f"not ready within {seconds:g} seconds: {self.memory_wanted() or reason}")

    def require_alive(self) -> None:
        """Raise if Java or a worker has said that it cannot go on."""
        if (failed := self.folder / "failed").exists():
            raise ServeError(f"a worker could not start: {failed.read_text(encoding='utf-8')}")
        if (code := self.process.poll()) is not None:
            raise self.early_end(f"TorchServe ended with exit code {code} before it was ready")

    def early_end(self, what: str) -> ServeError:
        time.sleep(0.2)  # for the last words to arrive
        return ServeError(self.memory_wanted() or f"{what}; its last words: {self.log.last_words}")

    def what_is_missing(self, archives: list[Archive], workers: int) -> str:
        """Return why these are not ready yet, nothing if they are; raise if a worker has been replaced: it ended while it loaded."""
        versions = {str(version): version for version in self.management.versions()}
        for archive in archives:
            if (version := versions.get(str(archive))) is None:
                return f"{archive} is not registered"
            pids = self.pids[str(version)]
            pids |= {pid for pid in version.workers if pid > 0}
            if len(pids) > workers:
                raise self.early_end("a worker ended while it loaded")
            if version.ready < workers:
                return f"{version.ready} of {workers} workers are ready"
        return next((reason for archive in archives if (reason := self.wrong_answer(archive))), "")

    def wrong_answer(self, archive: Archive) -> str:
        """Return what is wrong with the answer to the archive's known photo."""
        url = f"{self.inference}/predictions/{archive.name}/{archive.version}"
        request = urllib.request.Request(url, archive.model.photo, {"Content-Type": "image/png"})
        try:
            with open_here(request, 10) as response:
                answer = list(json.load(response)["probabilities"].values())
        except urllib.error.HTTPError as error:
            error.close()
            return f"a known photo is answered with status {error.code}"
        if archive.model.knows(answer):
            return ""
        return f"{archive.path} answers a known photo wrong: {answer} instead of {archive.model.answers[0]}"

    def memory_wanted(self) -> str:
        """Say so if Linux killed something since the start because memory ran out: TorchServe itself tells nothing of it."""
        if killed_for_memory() <= self.killed_before:
            return ""
        needed = f"{self.workers} workers and Java need about {300 + 250 * self.workers} MB"
        return f"too little memory, a process was killed for it; {needed}: allow more, or --workers 1"

    def say_ready(self, seconds: float) -> None:
        names = ", ".join(map(str, self.archives))
        address = f"{self.inference}/predictions/{self.archives[0].name}"
        say(f"ready in {seconds:.1f} s: {names} with {self.workers} workers on {address}")

    def stay(self) -> None:
        """Look after TorchServe until it ends, is told to end, or cannot answer any more."""
        last_look = answered = time.monotonic()
        dead_since: dict[str, float] = {}
        while self.stopping is None and self.process.poll() is None:
            time.sleep(0.1)
            if time.monotonic() < last_look + LOOK_SECONDS:
                continue
            health, last_look = self.look(), time.monotonic()
            answered = last_look if health.reached else answered
            if last_look - answered > SILENT_SECONDS:
                raise ServeError(f"TorchServe does not answer any more; its last words: {self.log.last_words}")
            self.given_up -= {str(one) for one in health.versions if one.ready}
            dead = {str(one): one for one in health.versions if one.workers and not one.ready}
            dead_since = {key: dead_since.get(key, last_look) for key in dead}
            for key, version in dead.items():
                self.judge_dead(version, last_look - dead_since[key])
            for version in health.versions:
                if version.queued and not version.workers and str(version) not in self.given_up:
                    self.help_stranded(version)

    def judge_dead(self, version: Version, seconds: float) -> None:
        """End a server whose live version has had no worker for long; take the workers from another version that cannot start."""
        if version.live and seconds > (STUCK_SECONDS if version.queued else DEAD_SECONDS):
            raise ServeError(f"no worker of {version} has been ready for {seconds:.0f} s; its last words: {self.log.last_words}")
        if not version.live and seconds > DEAD_SECONDS:
            self.give_up(version, self.log.last_words)

    def help_stranded(self, version: Version) -> None:
        """Let those be answered who wait for a version that has lost its last worker: TorchServe would let them wait for ever."""
        say(
            f"{version.queued} requests wait for {version}, which has no worker: it gets one, and keeps it until it is scaled again"
        )
        with contextlib.suppress(*UNREACHABLE):
            self.management.start_one(version)

    def give_up(self, version: Version, reason: str) -> None:
        say(f"{version} cannot start and gets no worker any more; remove it. The reason: {reason}", level="WARNING")
        self.given_up.add(str(version))
        with contextlib.suppress(*UNREACHABLE):
            self.management.scale(version, 0)

    def drain(self) -> None:
        """Go on answering until nobody asks any more: whoever sends requests needs a moment to see that we leave."""
        if self.stopping != signal.SIGTERM or not self.args.drain_seconds:
            return
        say(f"draining for up to {self.args.drain_seconds:g} s")
        end = time.monotonic() + self.args.drain_seconds
        before = -1.0
        while time.monotonic() < end and (now := self.requests()) != before:
            before = now
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def requests(self) -> float:
        """Return how many requests TorchServe has taken so far."""
        address = f"http://{reachable(self.args.metrics_host)}:{self.args.metrics_port}"
        try:
            with open_here(f"{address}/metrics?name[]=ts_inference_requests_total", 2) as response:
                return sum(float(line.rsplit(b" ", 1)[1]) for line in response if not line.startswith(b"#"))
        except (OSError, ValueError, IndexError):
            return -1.0

    def end(self) -> int:
        """End Java, and with it the workers; returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
