"""How should OpenMP's threads wait for each other? A training step and a prediction with two threads, on free and busy cores.

The OpenMP runtime reads its environment once, when torch loads it, so each measurement is a process of its own. Settings
take turns in every round. "Busy" means that one endless loop per core runs beside the measurement.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.record import write_record
from training.config import load_params
from training.network import build_network
from training.optimizer import Optimizers

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, dict[str, str]] = {
    "nothing set": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
VARIABLES = {name for setting in SETTINGS.values() for name in setting}
THREADS = "2"
PHOTOS, SIZE = 16, 96
MOST_SECONDS = 4.0  # for the repetitions of one process
LOADS = ("free cores", "busy cores")
LEAST = 4  # repetitions, also when each takes seconds because the threads spin


def training_step() -> Callable[[], object]:
    """Return one step of a training: forward, backward, optimizer."""
    config = load_params().train
    network = build_network(config.network, 2).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizers = Optimizers(network, config.learning_rate, config.learning_rate_other, config.weight_decay)
    photos = torch.rand(PHOTOS, 3, SIZE, SIZE) * 255
    targets = torch.eye(2)[torch.arange(PHOTOS) % 2]

    def step() -> None:
        functional.cross_entropy(network(photos), targets).backward()
        optimizers.step(1e-6)

    return step


def prediction() -> Callable[[], object]:
    """Return one prediction about one photo by the int8 model, which serves on CPUs."""
    model = torch.jit.load(str(ROOT / "pretrained" / "petclf-int8.pt"))
    photo = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    return torch.inference_mode()(partial(model, photo))


WORK: dict[str, Callable[[], Callable[[], object]]] = {
    "training step of 16 photos": training_step,
    "prediction for one photo": prediction,
}


def median_milliseconds(action: Callable[[], object], most: int) -> float:
    """Return how long the action takes, of at most so many; the first half of them warms up."""
    times: list[float] = []
    end = time.monotonic() + MOST_SECONDS
    while len(times) < LEAST or (len(times) < most and time.monotonic() < end):
        started = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[len(times) // 2 :])


def measure(work: str, setting: str, count: int) -> float:
    """Measure in a process of its own, which finds the setting when it loads torch."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"OMP_NUM_THREADS": THREADS, **SETTINGS[setting]}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.omp_wait", "--measure", work, "--count", str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep that many cores busy meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def table(figures: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return a row per kind of work: each setting's median [least-most], and its ratio to nothing set."""
    lines = [f"| milliseconds | {' | '.join(SETTINGS)} |", f"|---|{'---|' * len(SETTINGS)}"]
    for work, settings in figures.items():
        plain = statistics.median(settings[next(iter(SETTINGS))])
        cells = []
        for rounds in settings.values():
            middle = statistics.median(rounds)
            cells.append(f"{middle:.1f} [{min(rounds):.1f}-{max(rounds):.1f}], {middle / plain:.2f}")
        lines.append(f"| {work} | {' | '.join(cells)} |")
    return lines


def compare(loads: list[str], rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    """Measure all work with all settings, in turn, under each load."""
    figures: dict[str, dict[str, list[float]]] = {}
    for load in loads:
        for work in WORK:
            settings: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
            with busy_cores((os.cpu_count() or 1) if load == "busy cores" else 0):
                for _ in range(rounds):
                    for setting, times in settings.items():
                        times.append(measure(work, setting, count))
                        print(f"{work}, {load}, {setting}: {times[-1]:.1f} ms", flush=True)
            figures[f"{work}, {load}"] = settings
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=40, help="repetitions per process, at most")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=LOADS)
    parser.add_argument("--measure", choices=WORK, help="do this work in the environment as it is and print the milliseconds")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.measure:
        print(median_milliseconds(WORK[args.measure](), args.count))
        return
    figures = compare(args.loads, args.rounds, args.count)
    lines = table(figures)
    print("\n".join(lines))
    print(json.dumps(figures))
    if args.record:
        note = f"milliseconds: median of {args.rounds} rounds [least-most], and the ratio to nothing set"
        write_record(
            "omp_wait", "How OpenMP's threads wait", f"python -m benchmarks.omp_wait --rounds {args.rounds}", lines, note
        )


if __name__ == "__main__":
    main()
