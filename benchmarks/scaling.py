"""How many photos a second does one server answer, after which wait, and does a simple queue (queueing.py) explain it?

Each round asks the server and its gateway in turns: over 1 and over 32 connections, and then with random (Poisson) arrivals at shares
of what 32 connections got. The simulation gets the same arrivals, and three things measured in the same round: how long batches took
(from the prediction log), how long a lone request waits for company, and what passing a photo on costs. What other programs on the
machine do meets both sides alike.
"""

import argparse
import json
import random
import re
import shlex
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.drawing import draw_folder
from benchmarks.load import Load, as_request, quantiles, read_photos
from benchmarks.machine import describe_machine, git_commit
from benchmarks.peers.core import Core
from benchmarks.queueing import Server, simulate
from benchmarks.record import write_record
from benchmarks.report import SHARES
from benchmarks.systems import SYSTEMS, Running, running

[PETCLF] = [system for system in SYSTEMS if system.name == "petclf with gateway"]
LOGGED = 0.5  # seconds until the prediction log has everything
MANY = 32  # connections that keep all workers busy
WORKERS = 2
CALIBRATE = 4.0  # seconds
QUIET = 0.3  # cores
WITHIN = 0.15
QUANTILES = 41
FAR = 1000.0  # seconds before and after the measured batches, in which the machine is as fast as usual
QUEUED = r"^ts_queue_latency_microseconds\{.*\} (\S+)$"
FIGURES = {"rate": "throughput", "p50": "p50", "p99": "p99"}
Cell = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """A batch that a worker answered: when it ended, in seconds of the turn, and how long its photos took."""

    end: float
    photos: int
    seconds: float


def read_batches(lines: Sequence[str], started: float) -> list[Batch]:
    """Return the batches of these lines of the prediction log: a batch is in neighbouring lines, with the same time."""
    entries = [json.loads(line) for line in lines]
    found = []
    for moment, group in groupby(entries, key=lambda entry: entry["time"]):
        times = [sum(entry["milliseconds"].values()) / 1000 for entry in group]
        found.append(Batch(datetime.fromisoformat(moment).timestamp() - started, len(times), sum(times)))
    return sorted(found, key=lambda batch: batch.end)


@dataclass(frozen=True)
class Pace:
    """How long a batch takes: a line over its photos is the work, and the machine does it faster or slower from moment to moment."""

    batch: float
    photo: float
    slowness: Sequence[float]  # of each measured batch: its seconds divided by the line's
    moments: npt.NDArray[np.float64]  # when batches began or ended
    done: npt.NDArray[np.float64]  # how much work one worker would have done by then

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "Pace":
        """Fit the line to the median of each size, weighted by how often it came; what it leaves over is the machine's speed."""
        sizes = sorted({batch.photos for batch in batches})
        medians = [statistics.median(batch.seconds for batch in batches if batch.photos == size) for size in sizes]
        counts = [sum(batch.photos == size for batch in batches) for size in sizes]
        if len(sizes) > 1:
            photo, fixed = np.polyfit(sizes, medians, 1, w=np.sqrt(counts))
        if len(sizes) == 1 or photo <= 0 or fixed < 0:
            photo, fixed = sum(medians) / sum(sizes), 0.0
        slowness = [batch.seconds / (fixed + photo * batch.photos) for batch in batches]
        return cls(float(fixed), float(photo), slowness, *work_done(batches, slowness))

    def seconds(self, photos: int, now: float) -> float:
        end = np.interp(now, self.moments, self.done) + self.batch + self.photo * photos
        return float(np.interp(end, self.done, self.moments)) - now

    def facts(self) -> Cell:
        slowness = np.quantile(self.slowness, np.linspace(0, 1, QUANTILES)).tolist()
        return {"batch": self.batch, "photo": self.photo, "slowness": slowness}

    def drawn(self, photos: int, now: float) -> float:
        """The same with the slowness of any moment, but always the same one at the same time."""
        chosen = random.Random(now).choice(self.slowness)
        return (self.batch + self.photo * photos) * chosen


def work_done(batches: Sequence[Batch], slowness: Sequence[float]) -> tuple[Any, Any]:
    """Return moments, and the work done by then: at the mean speed of the batches on their way, or else as fast as the last ones."""
    begins = np.array([batch.end - batch.seconds for batch in batches])
    ends, speeds = np.array([batch.end for batch in batches]), 1 / np.array(slowness)
    moments = np.unique(np.concatenate([begins, ends]))
    speed = [1.0]
    for moment in (moments[1:] + moments[:-1]) / 2:
        on_their_way = speeds[(begins <= moment) & (moment < ends)]
        speed.append(float(on_their_way.mean()) if len(on_their_way) else speed[-1])
    moments = np.concatenate([[moments[0] - FAR], moments, [moments[-1] + FAR]])
    return moments, np.concatenate([[0.0], np.cumsum(np.diff(moments) * [*speed, 1.0])])


@dataclass(frozen=True)
class Passing:
    """What happens to photos outside the handler, in seconds, as measured over 1 and over 32 connections."""

    delay: float  # until a lone request's batch begins
    photo: float  # from TorchServe to the worker and back, of each photo of a batch
    front: float  # client, gateway, Java: of each request

    @classmethod
    def of(cls, one: Cell, many: Cell) -> "Passing":
        photo = (WORKERS * many["seconds"] - sum(batch.seconds for batch in many["batches"])) / count(many["batches"])
        delay = one["queue_seconds"] / count(one["batches"])
        alone = statistics.mean(one["answered"]) - sum(batch.seconds for batch in one["batches"]) / count(one["batches"])
        return cls(delay, max(0.0, photo), max(0.0, alone - delay - photo))

    def server(self, pace: Callable[[int, float], float]) -> Server:
        """Return the server whose handler has this pace."""
        return Server(lambda photos, now: pace(photos, now) + self.photo * photos, self.front, WORKERS, delay=self.delay)


def count(batches: Sequence[Batch]) -> int:
    return sum(batch.photos for batch in batches)


class Measurement:
    """One server that is asked in turns."""

    def __init__(self, server: Running, photos: Sequence[bytes], log: Path) -> None:
        self.server, self.log = server, log
        self.requests = [as_request(photo, PETCLF.path, PETCLF.form) for photo in photos]
        commands = [process.cmdline() for process in server.tree()]
        [self.metrics_port] = {words[words.index("--metrics-port") + 1] for words in commands if "--metrics-port" in words}

    def turn(self, ask: Callable[[Load], dict[str, Any]]) -> Cell:
        """Ask; returns what came back, and what it took."""
        time.sleep(LOGGED)
        logged = self.log.stat().st_size if self.log.exists() else 0
        queued, before, clock, started = self.queue_seconds(), self.cpu_seconds(), time.perf_counter(), time.time()
        load = Load(int(self.server.port), self.requests)
        found = ask(load)
        seconds, spent = time.perf_counter() - clock, {name: now - before[name] for name, now in self.cpu_seconds().items()}
        time.sleep(LOGGED)
        with self.log.open(encoding="utf-8") as file:
            file.seek(logged)
            batches = read_batches(file.readlines(), started)
        others = (spent.pop("machine") - sum(spent.values())) / seconds
        facts = {"seconds": seconds, "queue_seconds": self.queue_seconds() - queued, "cpu_seconds": spent, "others": others}
        return {**found, **facts, "batches": batches, "answered": load.outcome.answered}

    def queue_seconds(self) -> float:
        """Return how long all requests together have waited in TorchServe's queue."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            return sum(float(value) for value in re.findall(QUEUED, page.read().decode(), re.MULTILINE)) / 1e6

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of nginx and Java, of the workers, of this client, and of the whole machine."""
        front = workers = 0.0
        for process in self.server.tree():
            used = sum(process.cpu_times()[:2])
            if any(word.endswith("model_service_worker.py") for word in process.cmdline()):
                workers += used
            else:
                front += used
        idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in user, too
        machine = sum(value for name, value in psutil.cpu_times()._asdict().items() if name not in idle)
        return {"front": front, "workers": workers, "client": time.process_time(), "machine": machine}

    def round(self, number: int, shares: Sequence[float], seconds: float) -> list[Cell]:
        """Measure everything once, and simulate it."""
        one, many = (self.turn(lambda load, each=each: load.closed(each, CALIBRATE)) for each in (1, MANY))  # type: ignore[misc]
        passing, cells = Passing.of(one, many), []
        for connections, cell in ((1, one), (MANY, many)):
            cells.append({"connections": connections, **summary(cell), "passing": vars(passing)})
        blind = Pace.of([*one["batches"], *many["batches"]])
        for share in shares:
            rate = share * many["rate"]
            dues = np.random.default_rng(number).exponential(1 / rate, int(rate * seconds)).cumsum().tolist()
            cell = self.turn(lambda load, dues=dues: load.scheduled(dues))  # type: ignore[misc]
            paces = {"paced": Pace.of(cell["batches"]).seconds, "blind": blind.drawn}
            simulated = {name: simulated_figures(passing.server(pace), dues) for name, pace in paces.items()}
            facts = {"share": share, "asked": rate, "capacity": many["rate"], "pace": Pace.of(cell["batches"]).facts()}
            cells.append({**facts, **summary(cell), **simulated})
        return [{"round": number, **cell} for cell in cells]


def summary(cell: Cell) -> Cell:
    """Return a turn's figures without its single answers and batches."""
    photos = count(cell["batches"])
    kept = {name: cell[name] for name in ("rate", "statuses", "others")}
    return {
        **kept,
        **quantiles(cell["answered"]),
        "batch": photos / len(cell["batches"]),
        "cpu_ms": {name: 1000 * value / photos for name, value in cell["cpu_seconds"].items()},
        "handler_ms": 1000 * sum(batch.seconds for batch in cell["batches"]) / photos,
    }


def simulated_figures(server: Server, dues: Sequence[float]) -> Cell:
    result = simulate(server, dues)
    batch = len(result.answered) / len(result.batches)
    return {"rate": result.in_time / dues[-1], **quantiles(result.answered), "batch": batch, "refused": result.refused}


def tables(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "| turn | n | answered / s | p50 ms | p99 ms | photos a batch | CPU ms a photo: workers / nginx and Java / client | cores of other programs |"
    ]
    lines.append("|---" * 8 + "|")
    for name, some in turns(cells):
        cpu = " / ".join(
            f"{statistics.median(cell['cpu_ms'][part] for cell in some):.2f}" for part in ("workers", "front", "client")
        )
        figures = " | ".join(
            spread([cell[key] for cell in some], form) for key, form in (("rate", ".0f"), ("p50", ".1f"), ("p99", ".0f"))
        )
        batch, others = (spread([cell[key] for cell in some], ".2f") for key in ("batch", "others"))
        lines.append(f"| {name} | {len(some)} | {figures} | {batch} | {cpu} | {others} |")
    return lines


def turns(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    names = {(cell.get("connections"), cell.get("share")): None for cell in cells}
    found = []
    for connections, share in names:
        some = [cell for cell in cells if (cell.get("connections"), cell.get("share")) == (connections, share)]
        found.append((f"{connections} connections" if connections else f"{share:.0%} of capacity", some))
    return found


def comparison(cells: Sequence[Cell], pace: str) -> list[str]:
    """Return simulated divided by measured, in each round; and whether the median is within the limit."""
    lines = ["| load | n | " + " | ".join(FIGURES.values()) + " |", "|---" * (2 + len(FIGURES)) + "|"]
    for name, some in turns(cells):
        if "share" not in some[0]:
            continue
        shown = []
        for key in FIGURES:
            found = [cell[pace][key] / cell[key] for cell in some]
            shown.append(spread(found, ".2f") + ("" if abs(statistics.median(found) - 1) <= WITHIN else " (no)"))
        lines.append(f"| {name} | {len(some)} | {' | '.join(shown)} |")
    return lines


def spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


def quiet(cells: Sequence[Cell]) -> list[Cell]:
    """Return the turns beside which other programs took little."""
    return [cell for cell in cells if cell["others"] <= QUIET]


def report(cells: Sequence[Cell]) -> list[str]:
    passing = [cell["passing"] for cell in cells if cell.get("connections") == MANY]
    told = [f"{name} {spread([1000 * one[key] for one in passing], '.1f')}" for key, name in
            (("delay", "waiting for company"), ("photo", "passing a photo between TorchServe and worker"), ("front", "client, nginx and Java"))]  # fmt: skip
    lines = ["## Measured", "", *tables(cells), "", f"Outside the handler, ms: {'; '.join(told)}.", ""]
    heads = {
        "paced": "the machine as slow as at that moment of the measurement",
        "blind": f"the machine as slow as over 1 and {MANY} connections in the same round",
    }
    for pace, head in heads.items():
        lines += [f"## Simulated / measured: {head}", "", "All turns:", "", *comparison(cells, pace), ""]
        if any("share" in cell for cell in quiet(cells)):
            lines += [f"Turns beside which other programs took at most {QUIET:g} cores:", "", *comparison(quiet(cells), pace), ""]
    return [*lines, f"Ratio, median [range] of the rounds; (no): the median is not within {WITHIN:.0%}."]


def quietest(cells: Sequence[Cell]) -> Cell:
    """Return what predictions need, from the round beside which other programs took least: seconds, and CPU seconds."""
    rounds = [[cell for cell in cells if cell["round"] == number] for number in sorted({cell["round"] for cell in cells})]
    best = min(rounds, key=lambda some: statistics.mean(cell["others"] for cell in some))
    [one], [many] = ([cell for cell in best if cell.get("connections") == each] for each in (1, MANY))
    paced = max((cell for cell in best if "share" in cell), key=lambda cell: cell["share"])  # the cores are full
    alone, together = ((cell["cpu_ms"]["workers"] + cell["cpu_ms"]["front"]) / 1000 for cell in (one, many))
    cpu_batch = max(0.0, (alone - together) / (1 - 1 / many["batch"]))
    passing = {"delay": many["passing"]["delay"], "passing": many["passing"]["photo"], "front": many["passing"]["front"]}
    return {**paced["pace"], **passing, "cpu_batch": cpu_batch, "cpu_photo": alone - cpu_batch, "cores": WORKERS}


def measure(photos: Sequence[bytes], rounds: int, shares: Sequence[float], seconds: float) -> list[Cell]:
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="petclf-") as scratch:
        log = Path(scratch, "predictions.jsonl")
        system = replace(PETCLF, environment={"PETCLF_PREDICTION_LOG": str(log), "PETCLF_PREDICTION_LOG_BYTES": str(2**40)})
        with running(system, Path(scratch, "server"), photos[0], Core().answer(photos[0])["label"]) as server:
            measurement = Measurement(server, photos, log)
            measurement.turn(lambda load: load.closed(MANY, CALIBRATE))
            for number in range(rounds):
                cells += measurement.round(number, shares, seconds)
                print(f"round {number + 1} of {rounds}: {cells[-1]['capacity']:.0f} photos a second", flush=True)
    return cells


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it photos are drawn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10, help="for each turn at a share of the capacity")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of what 32 connections get")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/<date>_scaling.md and .json")
    args = parser.parse_args(argv)
    if min(args.rounds, args.seconds, *args.shares) <= 0:
        parser.error("--rounds, --seconds and --shares must be above 0")
    if PETCLF.missing:
        sys.exit(f"error: {PETCLF.missing}; Debian: apt-get install nginx libnginx-mod-http-lua")
    with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
        photos = read_photos(args.photos or draw_folder(Path(folder, "photos")))
    if not photos:
        sys.exit(f"error: no *.jpg in {args.photos}")
    cells = measure(photos, args.rounds, args.shares, args.seconds)
    lines = report(cells)
    print("\n".join(lines))
    if args.record:
        record(args, cells, lines)


def record(args: argparse.Namespace, cells: Sequence[Cell], lines: Sequence[str]) -> None:
    words = ["..." if word == str(args.photos) else word for word in sys.argv[1:]]  # nobody else has them
    command = shlex.join(["python", "-m", "benchmarks.scaling", *words])
    path = write_record(
        "scaling",
        "One server as a queue",
        command,
        lines,
        f"{len(cells) // (2 + len(args.shares))} rounds; other programs ran beside it",
    )
    content = {
        "command": command,
        "commit": git_commit(),
        "machine": describe_machine(),
        "server": quietest(cells),
        "cells": cells,
    }
    path.with_suffix(".json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
