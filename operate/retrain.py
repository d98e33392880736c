"""New photos -> a new version that is live if it is good enough. Each step is a command that can also be typed alone.

Everything is in one work folder: the settings that were used, what each step made, and retrain.json, which says what is done. A command
that was killed is given again and goes on with the step that was not finished; training goes on from its checkpoint.
"""

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from handler.model_file import Archive
from operate.client import UsageError
from operate.errors import NotDoneError
from operate.files import locked, write_whole

STATE = "retrain.json"
MODEL = "petclf.pt"
REGISTERED = "petclf"  # the name in MLflow's registry, whatever the model is called
REFUSED = 1  # how scripts.models ends where a candidate is not good enough


@dataclass(frozen=True)
class Asked:
    """What is to be done. While a retraining is unfinished, only the very same can be asked for."""

    photos: tuple[str, ...]
    outliers: str
    labelled: str  # photos that candidate and live version are compared on; the test photos if there are none
    late_labels: tuple[str, ...]
    logs: tuple[str, ...]
    minutes: float | None
    gate: str
    watch: float


@dataclass(frozen=True)
class Plan:
    """A retraining that has begun: from which version, to which."""

    asked: Asked
    model: str
    live: str
    candidate: str
    tracked: bool


@dataclass(frozen=True)
class Step:
    """A command, and what it is for."""

    name: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name:<9} python -m {shlex.join(self.command)}"


Runner = Callable[[Sequence[str]], int]


def run(command: Sequence[str]) -> int:
    """Run a step as a command of its own, with this terminal and this lock."""
    return subprocess.run([sys.executable, "-m", *command], check=False, close_fds=False).returncode


@dataclass(frozen=True)
class Retraining:
    """A work folder, and the servers that the new version is for."""

    work: Path
    servers: tuple[str, ...]  # options of scripts.models: which servers, which store, which keys
    runner: Runner = run
    say: Callable[[str], None] = print

    def steps(self, plan: Plan) -> list[Step]:
        asked, at = plan.asked, self.at
        data = ("--params", at("params.yaml"), "--manifest", at("manifest.csv"))
        weights, outliers = ("--weights", at("weights.pt")), ("--outliers", asked.outliers) if asked.outliers else ()
        minutes = ("--minutes", f"{asked.minutes:g}") if asked.minutes else ()
        return [
            Step("servers", self.models("list")),  # now, and not after an hour of training
            *([Step("look back", self.late_labels(asked))] if asked.late_labels else []),
            Step("prepare", ("training.manifest", *asked.photos, "--params", at("params.yaml"), "--output", at("manifest.csv"))),
            Step("train", ("training.train", *data, "--output", at("weights.pt"), *outliers, *minutes)),
            Step("fit", ("training.fit", *data, *weights, *outliers)),
            Step("evaluate", ("training.evaluate", *data, *weights, "--reports", at("reports"), "--before", at("live.pt"), *outliers)),
            Step("export", ("training.export", "--params", at("params.yaml"), *weights, "--reports", at("reports"), "--output", at(MODEL))),
            *self.archive(plan, data[2:], weights),
            *([] if asked.labelled else [Step("hold out", ("training.held_out", at("held-out"), *data[2:]))]),
            Step("verify", self.models("verify", plan.candidate, asked.labelled or at("held-out"), "--gate", asked.gate)),
            Step("promote", self.models("promote", plan.candidate, "--gate", asked.gate, "--watch", f"{asked.watch:g}", "--why", why(asked))),
        ]  # fmt: skip

    def archive(self, plan: Plan, manifest: tuple[str, ...], weights: tuple[str, ...]) -> list[Step]:
        """Return how the model gets to the servers: through MLflow's registry where trainings are tracked."""
        if plan.tracked:
            log = ("training.register", *weights, "--reports", self.at("reports"), "--model", self.at(MODEL), *manifest)
            return [Step("log", log), Step("register", self.models("register", f"models:/{REGISTERED}@candidate"))]
        file = self.at(f"{plan.model}-{plan.candidate}.mar")
        build = ("scripts.build_archive", "--model", self.at(MODEL), "--output", file, "--replace")
        return [Step("archive", build), Step("register", self.models("register", file))]

    def late_labels(self, asked: Asked) -> tuple[str, ...]:
        labels = [word for file in asked.late_labels for word in ("--labels", file)]
        return ("scripts.late_labels", *asked.logs, *labels, "--report", self.at("late"))

    def models(self, *words: str) -> tuple[str, ...]:
        return ("scripts.models", *words, *self.servers)

    def at(self, name: str) -> str:
        return str(self.work / name)

    # --- running

    def locked(self) -> contextlib.AbstractContextManager[None]:
        self.work.mkdir(parents=True, exist_ok=True)
        return locked(self.work / ".lock", f"a retraining is running in {self.work}; try again when it has ended", inherited=True)

    def begin(self, asked: Asked, fresh: bool) -> tuple[Plan, list[str]] | None:
        """Return the plan of a retraining that was not finished, and the steps that are done; None where a new one begins."""
        found = self.read()
        if fresh or found is None or found["ended"]:
            return None
        plan = Plan(
            **{**found["plan"], "asked": Asked(**{name: as_tuple(value) for name, value in found["plan"]["asked"].items()})}
        )
        if plan.asked != asked:
            raise UsageError(
                f"the retraining in {self.work} to {plan.candidate} was asked for with other options and is not finished; give the "
                "same command again, or begin anew with --fresh"
            )
        return plan, found["done"]

    def make_ready(self, plan: Plan, params: dict[str, Any], live: Archive) -> None:
        """Empty the work folder, then put the settings and the live model there: training begins with what is live."""
        # first, for what follows may be killed, and half a folder is no retraining to go on with
        (self.work / STATE).unlink(missing_ok=True)
        for path in self.work.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with zipfile.ZipFile(live.path) as packed:
            write_whole(self.work / "live.pt", packed.read(MODEL))
        chosen = {
            **params,
            "train": {**params["train"], "start_from": self.at("live.pt")},
            "export": {"name": plan.model, "version": plan.candidate},
        }
        write_whole(self.work / "params.yaml", yaml.safe_dump(chosen, sort_keys=False))
        self.write(plan, [])

    def go_on(self, plan: Plan, done: list[str]) -> str:
        """Run what is left to do; returns what came of it."""
        for step in self.steps(plan):
            if step.name in done:
                continue
            self.say(f"--- {step}")
            code = self.runner(step.command)
            if code == REFUSED and step.name in ("register", "verify", "promote"):
                self.refuse(plan, done, step.name)
            if code:
                raise UsageError(
                    f"the step `{step.name}` ended with exit code {code}, for the reason above; the same command goes on from there"
                )
            done = [*done, step.name]
            self.write(plan, done)
        self.write(plan, done, ended="promoted")
        return f"{plan.model} {plan.candidate} is live; {plan.live} stays loaded for a rollback until it is retired"

    def refuse(self, plan: Plan, done: list[str], step: str) -> None:
        """End a retraining whose version is not good enough: it leaves the servers, and its files stay to be looked at."""
        if step != "register":
            self.runner(self.models("retire", plan.candidate, "--why", f"not good enough: {step}"))
        self.write(plan, done, ended=f"refused: {step}")
        raise NotDoneError(
            f"{plan.candidate} did not pass `{step}`, {plan.live} stays live; reports and model are in {self.work}"
        )

    # --- retrain.json

    def read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.work / STATE).read_text(encoding="utf-8"))
            return found
        except FileNotFoundError:
            return None
        except ValueError:
            raise UsageError(f"{self.work / STATE} cannot be read; begin anew with --fresh") from None

    def write(self, plan: Plan, done: list[str], ended: str = "") -> None:
        write_whole(self.work / STATE, json.dumps({"plan": asdict(plan), "done": done, "ended": ended}, indent=1) + "\n")


def why(asked: Asked) -> str:
    return f"retrained on {', '.join(asked.photos) or 'the photos of params.yaml'}"


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def next_version(live: str, taken: Sequence[str]) -> str:
    """Return the next minor version that nobody has used."""
    major, minor, *_ = [*(int(part) for part in live.split("-")[0].split(".") if part.isdecimal()), 0, 0]
    while True:
        minor += 1
        if (version := f"{major}.{minor}.0") not in taken:
            return version


def written(plan: Plan, steps: Sequence[Step], done: Sequence[str], work: Path) -> Iterator[str]:
    """Tell what would be done."""
    yield f"{plan.model} {plan.live} is live; {plan.candidate} would be trained from it, in {work}"
    for step in steps:
        yield f"  {'done' if step.name in done else '    '}  {step}"
