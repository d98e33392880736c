"""How cost grows: with the size of photos, of batches, the number of workers, of versions, and of photos: to score, to learn."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.ceiling import Ceiling
from benchmarks.drawing import draw_folder
from benchmarks.load import read_photos
from benchmarks.machine import pss_of_children
from benchmarks.peers.ports import free_ports
from benchmarks.record import record_path, write_record
from benchmarks.systems import ROOT, Running
from benchmarks.training_processes import write_params

MEGAPIXELS = (0.1, 0.5, 2, 8, 24, 49)  # the limit is 50
BATCHES = (1, 2, 4, 8, 16)
WORKERS = (1, 2, 3, 4)
VERSIONS = (1, 2, 3, 4)
PHOTOS = (500, 1000, 2000, 4000)
DATASETS = (2500, 5000, 10_000, 20_000)
EPOCHS = 2
Point = dict[str, float]


@contextmanager
def serving(store: Path, workers: int = 2) -> Iterator[tuple[Running, int]]:
    """A server with this model store; yields it and its management port."""
    port, management, metrics = free_ports(3)
    command = [sys.executable, "-m", "scripts.serve", "--model-store", str(store), "--workers", str(workers)]
    ports = ["--port", str(port), "--management-port", str(management), "--metrics-port", str(metrics), "--ready-port", "0"]
    started = time.monotonic()
    with subprocess.Popen([*command, *ports], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"ready in ' in line:
                break
        else:
            raise SystemExit("error: the server did not come up")
        try:
            yield Running(process, port, time.monotonic() - started), management  # type: ignore[arg-type]
        finally:
            process.terminate()
            process.stdout.read()


def load(port: int, photos: Path, connections: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(photos), "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--lead", str(seconds / 2)]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def photo_of(megapixels: float) -> bytes:
    """A photo as a camera makes it, about half a byte a pixel, at most 10 MB."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, height * 3 // 16 + 1, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((height * 3 // 2, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def by_size_of_photos(store: Path, scratch: Path, seconds: float) -> list[Point]:
    points = []
    with serving(store) as (server, _):
        for megapixels in MEGAPIXELS:
            folder = scratch / f"{megapixels}"
            folder.mkdir()
            (folder / "photo.jpg").write_bytes(photo_of(megapixels))
            result = load(server.port, folder, 4, seconds)
            size = (folder / "photo.jpg").stat().st_size / 1e6
            points.append(
                {
                    "x": megapixels,
                    "rate": result["rate"],
                    "memory": server.memory() / 1e6,
                    "p50": result["answered_ms"]["p50"],
                    "MB": size,
                }
            )
    return points


def by_size_of_batches(photos: Path, seconds: float) -> list[Point]:
    with Ceiling(read_photos(photos)) as ceiling:
        return [{"x": batch, "rate": ceiling.at_most(batch, seconds)["rate"]} for batch in BATCHES]


def by_workers(store: Path, photos: Path, seconds: float) -> list[Point]:
    points = []
    for workers in WORKERS:
        with serving(store, workers) as (server, _):
            rate = load(server.port, photos, 32, seconds)["rate"]
            points.append({"x": workers, "rate": rate, "memory": server.memory() / 1e6, "start": server.start_seconds})
    return points


def by_versions(scratch: Path, photos: Path, seconds: float) -> list[Point]:
    """Versions that are registered beside the first, a worker each; the first is the one that is asked."""
    points = []
    store = scratch / "versions"
    store.mkdir()
    for number in VERSIONS:
        build_version(store, f"0.0.{number}", scratch)
    first = scratch / "first"
    first.mkdir()
    (first / "petclf.mar").write_bytes((store / "0.0.1.mar").read_bytes())
    for number in VERSIONS[1:]:
        (first / f"later-{number}.mar.held").write_bytes((store / f"0.0.{number}.mar").read_bytes())
    with serving(first, 1) as (server, management):
        for number in VERSIONS:
            if number > 1:
                (first / f"later-{number}.mar.held").rename(first / f"later-{number}.mar")
                address = f"http://127.0.0.1:{management}/models?url=later-{number}.mar&initial_workers=1&synchronous=true"
                urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=120).close()
            rate = load(server.port, photos, 32, seconds)["rate"]
            points.append({"x": number, "rate": rate, "memory": server.memory() / 1e6})
    return points


def build_version(store: Path, version: str, scratch: Path) -> None:
    """Build an archive of the released model, in both its forms, under another version."""
    shutil.copy(ROOT / "pretrained" / "petclf-int8.pt", scratch)
    changed = scratch / "changed.pt"
    with zipfile.ZipFile(ROOT / "pretrained" / "petclf.pt") as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("extra/metadata.json"):
                data = json.dumps({**json.loads(data), "version": version}).encode()
            new.writestr(entry, data)
    command = [sys.executable, "-m", "scripts.build_archive", "--model", str(changed), "--output", str(store / f"{version}.mar")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def by_number_of_photos(store: Path, photos: Path) -> list[Point]:
    """scripts/predict.py on more and more photos: its time, and the most memory that it took."""
    names = [str(path.resolve()) for path in sorted(photos.rglob("*.jpg"))]
    points = []
    with serving(store) as (server, _):
        load(server.port, photos, 32, 5)
        for number in PHOTOS:
            listed = "".join(f"{names[index % len(names)]}\n" for index in range(number))
            command = [sys.executable, "scripts/predict.py", "--list", "--server", f"http://127.0.0.1:{server.port}", "--csv"]
            started, most = time.monotonic(), 0
            with subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
            ) as client:
                assert client.stdin is not None
                client.stdin.write(listed)
                client.stdin.close()
                while client.poll() is None:
                    most = max(most, psutil.Process(client.pid).memory_info().rss)
                    time.sleep(0.05)
            points.append(
                {"x": number, "seconds": time.monotonic() - started, "client": most / 1e6, "memory": server.memory() / 1e6}
            )
    return points


def by_size_of_dataset(dataset: Path, scratch: Path) -> tuple[list[Point], list[Point]]:
    """The manifest of more and more photos of a zip, and epochs of training at 64 pixels on it."""
    manifests, trainings = [], []
    for number in DATASETS:
        folder = scratch / f"dataset-{number}"
        folder.mkdir()
        thin_out_zip(dataset, folder / "photos.zip", number)
        write_params(folder / "params.yaml", 64, EPOCHS)
        manifests.append({"x": number, **watched(folder, "training.manifest", "photos.zip")})
        trainings.append({"x": number, **watched(folder, "training.train")})
    return manifests, trainings


def thin_out_zip(dataset: Path, target: Path, photos: int) -> None:
    """Copy every so-many-th photo of a zip."""
    with zipfile.ZipFile(dataset) as whole, zipfile.ZipFile(target, "w") as part:
        names = [name for name in whole.namelist() if name.endswith(".jpg")]
        for index in range(min(photos, len(names))):
            name = names[index * len(names) // photos]
            part.writestr(name, whole.read(name))


def watched(folder: Path, module: str, *arguments: str) -> dict[str, float]:
    """Run one of our commands; returns its seconds, and the most memory that it and its helpers took, MB."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started, most = time.monotonic(), 0
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                most = max(most, pss_of_children(process.pid))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"error: {module} ended with {process.returncode}")
    return {"seconds": time.monotonic() - started, "memory": most / 1e6}


def plot(results: dict[str, list[Point]], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415  (slow to import)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, 4, figsize=(20, 8), layout="constrained")
    for axis, (name, points) in zip(axes.flat, results.items(), strict=False):
        x = [point["x"] for point in points]
        key = "seconds" if "seconds" in points[0] else "rate"
        axis.plot(x, [point[key] for point in points], "o-", label="seconds" if key == "seconds" else "photos a second")
        axis.set(title=f"by {name}", xlabel=name, ylabel=axis.get_lines()[0].get_label(), ylim=(0, None))
        if "memory" in points[0]:
            beside = axis.twinx()
            beside.plot(x, [point["memory"] for point in points], "s--", color="tab:red")
            beside.set(ylabel="memory, MB (dashed)", ylim=(0, None))
    for axis in list(axes.flat)[len(results) :]:
        axis.axis("off")
    figure.savefig(path, dpi=80)


def table(name: str, points: list[Point]) -> list[str]:
    keys = list(points[0])
    lines = [f"## By {name}", "", "| " + " | ".join([name, *keys[1:]]) + " |", "|---" * len(keys) + "|"]
    lines += ["| " + " | ".join(f"{point[key]:,.1f}".removesuffix(".0") for key in keys) + " |" for point in points]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it photos are drawn")
    parser.add_argument(
        "--dataset", type=Path, help="zip with a folder a label, for manifest and training; without it they are left out"
    )
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="petclf-") as name:
        scratch = Path(name)
        photos = args.photos or draw_folder(scratch / "drawn")
        store = ROOT / "model_store"
        results = {
            "megapixels of a photo": by_size_of_photos(store, scratch, args.seconds),
            "photos in a batch, in process": by_size_of_batches(photos, args.seconds),
            "workers": by_workers(store, photos, args.seconds),
            "versions loaded": by_versions(scratch, photos, args.seconds),
            "photos to score": by_number_of_photos(store, photos),
        }
        if args.dataset:
            manifests, trainings = by_size_of_dataset(args.dataset, scratch)
            results |= {"photos of a manifest": manifests, f"photos of a training, {EPOCHS} epochs at 64 pixels": trainings}
    lines = [line for name, points in results.items() for line in table(name, points)]
    print("\n".join(lines))
    if args.record:
        path = record_path("growth")
        given = f"{' --photos ...' if args.photos else ''}{' --dataset ...' if args.dataset else ''}"
        command = f"python -m benchmarks.growth{given} --seconds {args.seconds:g}"
        head = [
            "rate: photos a second; memory: PSS of the whole server, of a manifest, of a training (whose photos are a mapped file,",
            "which the system takes back), MB; client: MB of scripts/predict.py",
            "",
            f"![plots]({path.stem}.png)",
            "",
        ]
        write_record("growth", "How cost grows", command, [*head, *lines[:-1]])
        path.with_suffix(".json").write_text(json.dumps(results) + "\n", encoding="utf-8")
        plot(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
