"""How do 10 and 100 replicas do under a daily load and in a flash crowd, when Kubernetes scales them?

A load balancer that picks a replica at random gives each the same random arrivals, so one replica's queue (queueing.py, with what
benchmarks.scaling measured) tells the latency of all at any load. Above that, second by second: the load, the replicas that are ready,
and a HorizontalPodAutoscaler as Kubernetes documents it. The figures are predictions: no cluster was measured.
"""

import argparse
import json
import math
import random
import shlex
import statistics
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from benchmarks.queueing import Server, Steps, simulate
from benchmarks.record import RESULTS, record_path, write_record

SYNC = 15  # seconds between two decisions; Kubernetes' default, as are the two below
TOLERANCE = 0.1  # no change as long as the metric is so near to its target
STABLE = 300  # seconds: of all replicas wanted in this time, the most stay
AGE = 15  # seconds: how old a metric is when it is used
LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
REQUESTS = 8_000  # for each of them
REFUSING = 0.01  # share of the requests from which on a second counts as bad
HOUR = 3600
Load = Callable[[float], float]  # seconds -> requests a second, as a multiple of one replica's capacity


@dataclass(frozen=True)
class Measured:
    """What benchmarks.scaling found of one server, in seconds, on cores that nobody else used much."""

    batch: float
    photo: float
    slowness: list[float]
    delay: float
    passing: float
    front: float
    cpu_batch: float
    cpu_photo: float
    cores: int

    @classmethod
    def read(cls, path: Path) -> "Measured":
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(**record["server"])

    def server(self) -> Server:
        draw = random.Random(0)

        def service(photos: int, _: float) -> float:
            return (self.batch + self.photo * photos) * draw.choice(self.slowness) + self.passing * photos

        return Server(service, self.front, self.cores, delay=self.delay)


@dataclass(frozen=True)
class Replica:
    """What one replica does at a load: each list has a value for each of the loads."""

    capacity: float  # photos a second
    loads: list[float]
    p50: list[float]  # ms
    p99: list[float]
    kept: list[float]  # answered, as a multiple of the capacity
    inside: list[float]  # requests, mean
    queue: list[float]  # ms, mean
    cpu: list[float]  # of its cores

    @classmethod
    def of(cls, measured: Measured) -> "Replica":
        capacity = answered_a_second(measured.server(), 10 * measured.cores / (measured.photo + measured.passing))[0]
        rows = []
        for load in LOADS:
            rate, result = answered_a_second(measured.server(), load * capacity)
            p50, p99 = (1000 * float(value) for value in np.quantile(result.answered, (0.5, 0.99)))
            batch = len(result.answered) / len(result.batches)
            cpu = rate * (measured.cpu_batch / batch + measured.cpu_photo) / measured.cores
            inside, queue = rate * statistics.mean(result.answered), 1000 * statistics.mean(result.waited)
            rows.append((load, p50, p99, rate / capacity, inside, queue, min(1.0, cpu)))
        return cls(capacity, *(list(column) for column in zip(*rows, strict=True)))

    def at(self, name: str, load: float) -> float:
        return float(np.interp(load, self.loads, getattr(self, name)))


def answered_a_second(server: Server, rate: float) -> tuple[float, Any]:
    dues = np.random.default_rng(0).exponential(1 / rate, REQUESTS).cumsum().tolist()
    result = simulate(server, dues)
    return result.in_time / dues[-1], result


@dataclass(frozen=True)
class Autoscaler:
    """A HorizontalPodAutoscaler: a metric of a replica, its target, and the seconds until a new replica is ready."""

    metric: str  # "cpu", or "inside": requests in a replica
    target: float
    start: float = 30.0
    least: int = 2
    most: int = 1000
    window: int = 15  # seconds over which the metric is a mean
    up_every: int = 15  # seconds in which replicas may be doubled ...
    up_by: int = 4  # ... or become so many more, if that is more
    down_by: int | None = None  # replicas that may go in a minute; none: all


@dataclass
class Course:
    """What happened, second by second."""

    load: list[float] = field(default_factory=list)  # in replicas' capacities
    ready: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # share

    def summary(self) -> dict[str, float]:
        load, refused = np.array(self.load), np.array(self.refused)
        return {
            "refused": float((load * refused).sum() / load.sum()),
            "bad": int((refused > REFUSING).sum()),
            "p99": float(np.quantile(self.p99, 0.99)),
            "most": max(self.ready),
            "hours": sum(self.wanted) / HOUR,
        }


class Cluster:
    """Replicas, a load and an autoscaler."""

    def __init__(self, replica: Replica, autoscaler: Autoscaler, load: Load, replicas: int) -> None:
        self.replica, self.autoscaler, self.load = replica, autoscaler, load
        self.world = simpy.Environment()
        self.course = Course()
        self.ready = self.wanted = replicas
        self.totals: deque[float] = deque(maxlen=AGE + autoscaler.window)  # of the metric, over all replicas that are ready
        self.recommended: deque[int] = deque(maxlen=STABLE // SYNC)

    def run(self, seconds: int) -> Course:
        self.world.process(self.seconds())
        self.world.process(self.decide())
        self.world.run(until=seconds)
        return self.course

    def seconds(self) -> Steps:
        while True:
            load = self.load(self.world.now)
            each = load / self.ready
            self.totals.append(self.ready * self.replica.at(self.autoscaler.metric, each))
            self.course.load.append(load)
            self.course.ready.append(self.ready)
            self.course.wanted.append(self.wanted)
            self.course.p99.append(self.replica.at("p99", each))
            self.course.refused.append(max(0.0, 1 - self.replica.at("kept", each) / each) if each > 1 else 0.0)
            yield self.world.timeout(1)

    def decide(self) -> Steps:
        while True:
            yield self.world.timeout(SYNC)
            seen = list(self.totals)[:-AGE][-self.autoscaler.window :] or [self.totals[0]]
            self.recommended.append(self.recommendation(statistics.mean(seen)))
            wanted = self.recommended[-1]
            if wanted < self.wanted:
                wanted = min(max(self.recommended), self.wanted)
            self.change(self.limited(wanted))

    def limited(self, wanted: int) -> int:
        """Return what the policies allow."""
        scaler, before = self.autoscaler, self.course.wanted
        earlier = before[max(0, len(before) - scaler.up_every)]
        wanted = min(wanted, max(2 * earlier, earlier + scaler.up_by), scaler.most)
        if scaler.down_by is not None:
            wanted = max(wanted, min(self.wanted, before[max(0, len(before) - 60)] - scaler.down_by))
        return max(wanted, scaler.least)

    def recommendation(self, total: float) -> int:
        """Return how many replicas Kubernetes would want; those that are starting count as idle."""
        right = total / self.autoscaler.target
        return self.wanted if abs(right / self.wanted - 1) <= TOLERANCE else math.ceil(right)

    def change(self, wanted: int) -> None:
        if wanted > self.wanted:
            self.world.process(self.begin(wanted - self.wanted))
        self.wanted = wanted
        self.ready = min(self.ready, wanted)

    def begin(self, more: int) -> Steps:
        yield self.world.timeout(self.autoscaler.start)
        self.ready = min(self.ready + more, self.wanted)


def daily(peak: float) -> Load:
    """A fifth of the peak at midnight, the peak at noon."""
    return lambda now: peak * (0.2 + 0.8 * math.sin(math.pi * now / (24 * HOUR)) ** 2)


def flash_crowd(usual: float, times: float = 3.0) -> Load:
    """After ten minutes the load grows to a multiple within 30 seconds, stays for ten minutes, and goes back."""
    return lambda now: usual * float(np.interp(now, (600, 630, 1230, 1260), (1, times, times, 1)))


SCENARIOS: dict[str, tuple[Callable[[float], Load], int]] = {"day": (daily, 24 * HOUR), "flash crowd": (flash_crowd, 2400)}


def predict(replica: Replica, scenario: str, replicas: int, autoscaler: Autoscaler) -> Course:
    """Let a load come for which so many replicas are just right: at the peak of the day, or before the crowd."""
    shape, seconds = SCENARIOS[scenario]
    right = float(np.interp(autoscaler.target, getattr(replica, autoscaler.metric), replica.loads))
    begin = replicas if scenario == "flash crowd" else max(autoscaler.least, replicas // 5)
    return Cluster(replica, autoscaler, shape(right * replicas), begin).run(seconds)


SLOW: Any = {"window": 60, "up_every": 30, "up_by": 0, "down_by": 1}  # in the place of Kubernetes' defaults
AUTOSCALERS = {
    **{f"CPU {target:.0%}": Autoscaler("cpu", target) for target in (0.5, 0.6, 0.7)},
    "CPU 60%, slow": Autoscaler("cpu", 0.6, **SLOW),
    **{f"{target} in flight": Autoscaler("inside", target) for target in (2, 3, 4, 8)},
    **{f"{target} in flight, slow": Autoscaler("inside", target, **SLOW) for target in (3, 8)},
}
USUAL = "CPU 60%"
STARTS = {"image is on the node": 10.0, "image is pulled": 30.0, "node is added": 120.0}  # seconds; assumed


def curve(replica: Replica) -> list[str]:
    lines = [
        "| load, of capacity | p50 ms | p99 ms | answered, of capacity | in flight | in TorchServe's queue, ms | CPU |",
        "|---" * 7 + "|",
    ]
    for row in zip(
        replica.loads, replica.p50, replica.p99, replica.kept, replica.inside, replica.queue, replica.cpu, strict=True
    ):
        load, p50, p99, kept, inside, queue, cpu = row
        lines.append(f"| {load:.0%} | {p50:.0f} | {p99:.0f} | {kept:.2f} | {inside:.1f} | {queue:.1f} | {cpu:.0%} |")
    return lines


def predictions(replica: Replica, sizes: Sequence[int]) -> list[str]:
    head = "| scenario | replicas | scaled by | a new replica is ready after | refused | seconds with refusals | p99 ms | most replicas | replica-hours |"
    lines = [head, "|---" * 9 + "|"]
    for scenario in SCENARIOS:
        for size in sizes:
            for name, autoscaler in AUTOSCALERS.items():
                for start in STARTS.values() if name == USUAL else (autoscaler.start,):
                    found = predict(replica, scenario, size, replace(autoscaler, start=start)).summary()
                    figures = (
                        f"{found['refused']:.2%} | {found['bad']} | {found['p99']:.0f} | {found['most']} | {found['hours']:.0f}"
                    )
                    lines.append(f"| {scenario} | {size} | {name} | {start:.0f} s | {figures} |")
    return lines


def plot(replica: Replica, sizes: Sequence[int], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415  (slow to import)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(3, len(sizes), figsize=(7 * len(sizes), 10), layout="constrained", squeeze=False)
    for column, name in enumerate(("p99", "inside")[: len(sizes)]):
        axis = axes[0][column]
        axis.plot(replica.loads, getattr(replica, name), "o-")
        axis.set(xlim=(0, 2), ylim=(0, None), xlabel="load / capacity of one replica")
        axis.set(title="one replica: " + {"p99": "p99, ms", "inside": "requests in flight"}[name])
    for row, scenario in enumerate(SCENARIOS, 1):
        for axis, size in zip(axes[row], sizes, strict=True):
            course = predict(replica, scenario, size, AUTOSCALERS[USUAL])
            unit, per = (HOUR, "hours") if scenario == "day" else (60, "minutes")
            times = np.arange(len(course.load)) / unit
            axis.plot(times, course.load, label="load, in capacities of one replica")
            axis.plot(times, course.ready, label="replicas that are ready")
            axis.fill_between(
                times, 0, np.array(course.load) * np.array(course.refused), color="tab:red", alpha=0.5, label="refused"
            )
            axis.set(title=f"{scenario}, {size} replicas, {USUAL}", xlabel=per, ylim=(0, None))
            axis.legend(loc="upper right")
    figure.savefig(path, dpi=80)


def latest() -> Path:
    """Return the newest measurement of benchmarks.scaling."""
    found = sorted(RESULTS.glob("*_scaling.json"))
    if not found:
        raise SystemExit(f"error: no *_scaling.json in {RESULTS}; python -m benchmarks.scaling --record makes one")
    return found[-1]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, help="a record of benchmarks.scaling (default: the newest)")
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/<date>_autoscaling.md and .png")
    args = parser.parse_args(argv)
    if min(args.replicas) < 1:
        parser.error("--replicas must be 1 or more")
    path = args.measured or latest()
    try:
        replica = Replica.of(Measured.read(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{path} is no record of benchmarks.scaling: {error}; python -m benchmarks.scaling --record makes one")
    lines = [
        f"## One replica: {replica.capacity:.0f} photos a second", "", *curve(replica), "",
        "## Replicas", "", *predictions(replica, args.replicas),
    ]  # fmt: skip
    print("\n".join(lines))
    if args.record:
        note = f"predicted from {path.name}; no cluster was measured"
        plot(replica, args.replicas, record_path("autoscaling").with_suffix(".png"))
        print(
            write_record(
                "autoscaling",
                "Replicas under load",
                shlex.join(["python", "-m", "benchmarks.autoscaling", *sys.argv[1:]]),
                lines,
                note,
            )
        )


if __name__ == "__main__":
    main()
