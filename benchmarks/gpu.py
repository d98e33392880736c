"""The same archive with a GPU and without one, on one machine: photos a second, how long each takes, and what limits.

In one process: the model alone on batches of each size, and the reading of a photo, which stays on the CPU. Then the server: workers that
share the GPU, and workers on the cores, asked over kept connections by several client processes.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.drawing import draw_photo, encoded
from benchmarks.peers.ports import free_ports
from benchmarks.record import record_path, write_record
from benchmarks.systems import ONE_THREAD, ROOT, SYSTEMS, Running, running
from handler.classifier import Classifier
from handler.photo_input import decode_photo

BATCHES = {"cpu": (1, 8), "cuda:0": (1, 8, 32, 128, 512)}  # TorchServe batches 8 at most; a GPU can take more
CONNECTIONS = (1, 8, 32, 64)
CLIENTS = 4  # processes, so that the clients are not what limits
MODEL = ROOT / "pretrained" / "petclf.pt"


def photos() -> list[bytes]:
    return [encoded(draw_photo(label, seed, (500, 375)), quality=90) for seed in range(20) for label in ("cat", "dog")]


# --- in one process


def model_alone(device: str, batch: int, seconds: float) -> dict[str, float]:
    """Return how many photos a second the model takes, and the median milliseconds of a batch: pixels in memory to answers in words."""
    classifier = Classifier(MODEL, device, 1)
    pixels = torch.randint(0, 256, (batch, 3, classifier.size, classifier.size), dtype=torch.uint8)
    for _ in range(5):
        classifier.predict(pixels)
    took, end = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < end:
        took.append(classifier.predict(pixels)[1])
    middle = statistics.median(took)
    return {"milliseconds": 1000 * middle, "photos_per_second": batch / middle}


def reading(seconds: float) -> float:
    """Return the median milliseconds that one core takes to read a photo."""
    size, files = Classifier(MODEL, "cpu", 1).size, photos()
    took, end = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        decode_photo(files[len(took) % len(files)], size)
        took.append(time.perf_counter() - started)
    return 1000 * statistics.median(took)


# --- the server


@contextlib.contextmanager
def serving(workers: int, gpu: bool, folder: Path) -> Iterator[Running]:
    def command(port: int, _: Path) -> list[str]:
        management, metrics = free_ports(2)
        ports = ["--port", str(port), "--management-port", str(management), "--metrics-port", str(metrics), "--ready-port", "0"]
        return [sys.executable, "-m", "scripts.serve", "--workers", str(workers), "--ready-seconds", "120", *ports]

    environment = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    system = replace(SYSTEMS[0], command=command, environment=environment)
    with running(system, folder, photos()[0], "label") as server:
        yield server


def asked(port: int, folder: Path, connections: int, seconds: float) -> dict[str, float]:
    """Ask over so many connections from several processes; rates add up, of the quantiles the worst one is told."""
    processes = min(CLIENTS, connections)
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(folder), "--seconds", str(seconds), "--lead", "1"]
    clients = [
        subprocess.Popen([*command, "--connections", str(connections // processes)], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    results = [json.loads(client.communicate()[0]) for client in clients]
    return {
        "rate": sum(one["rate"] for one in results),
        "p50": max(one["answered_ms"]["p50"] for one in results),
        "p99": max(one["answered_ms"]["p99"] for one in results),
        "errors": sum(count for one in results for status, count in one["statuses"].items() if status != "200"),
    }


def measure_server(workers: int, gpu: bool, rounds: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="petclf-gpu-") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        for number, photo in enumerate(photos()):
            (folder / "photos" / f"{number}.jpg").write_bytes(photo)
        with serving(workers, gpu, folder / "server") as server:
            found = {
                str(count): [asked(server.port, folder / "photos", count, seconds) for _ in range(rounds)]
                for count in CONNECTIONS
            }
            return {
                "workers": workers, "gpu": gpu, "start_seconds": server.start_seconds, "memory": server.memory(), "gpu_memory": gpu_memory(),
                "connections": {count: {key: statistics.median(one[key] for one in results) for key in results[0]} for count, results in found.items()},
            }  # fmt: skip


def gpu_memory() -> int:
    """Return the GPU's memory in use, in bytes; 0 where there is none."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


# --- the record


def lines(results: dict[str, Any]) -> Iterator[str]:
    yield f"One core reads a photo (500x375 JPEG, drawn) in {results['reading']:.2f} ms. The model alone, one thread:"
    yield ""
    yield "| on | batch | ms a batch | photos a second |"
    yield "|---|---|---|---|"
    for device, found in results["model"].items():
        for batch, one in found.items():
            yield f"| {device} | {batch} | {one['milliseconds']:.2f} | {one['photos_per_second']:,.0f} |"
    yield ""
    yield "The server, photos a second (p50 / p99 in ms) by the number of connections:"
    yield ""
    yield "| workers | on | " + " | ".join(map(str, CONNECTIONS)) + " | errors | memory MB | GPU memory MB |"
    yield "|---" * (5 + len(CONNECTIONS)) + "|"
    for one in results["server"]:
        cells = [f"{found['rate']:,.0f} ({found['p50']:.1f} / {found['p99']:.1f})" for found in one["connections"].values()]
        errors = sum(found["errors"] for found in one["connections"].values())
        where = "GPU" if one["gpu"] else "cores"
        yield (
            f"| {one['workers']} | {where} | "
            + " | ".join(cells)
            + (f" | {errors:.0f} | {one['memory'] / 1e6:,.0f} | {one['gpu_memory'] / 1e6:,.0f} |")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu-workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--cpu-workers", type=int, nargs="*", default=[4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available() and args.gpu_workers:
        sys.exit("error: torch sees no GPU here; --gpu-workers without a number measures the cores alone")
    os.environ |= ONE_THREAD
    devices = {"cores": "cpu", **({torch.cuda.get_device_name(): "cuda:0"} if args.gpu_workers else {})}
    results: dict[str, Any] = {
        "reading": reading(args.seconds),
        "model": {
            name: {str(batch): model_alone(device, batch, args.seconds) for batch in BATCHES[device]}
            for name, device in devices.items()
        },
        "server": [],
    }
    for workers, gpu in [(count, True) for count in args.gpu_workers] + [(count, False) for count in args.cpu_workers]:
        results["server"].append(measure_server(workers, gpu, args.rounds, args.seconds))
        print(json.dumps(results["server"][-1]), file=sys.stderr, flush=True)
    text = list(lines(results))
    print("\n".join(text))
    if args.record:
        path = write_record(
            "gpu",
            "The same archive with a GPU",
            "python -m benchmarks.gpu --record",
            text,
            f"{', '.join(devices)}; medians of {args.rounds}",
        )
        record_path("gpu").with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
