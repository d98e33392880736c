"""Training in one process with all cores against several with a share each (torchrun): images per second, in turn."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

from benchmarks.machine import describe_machine, git_commit
from training.config import PARAMS
from training.paths import MANIFEST
from training.train import ROOM

ROOT = Path(__file__).parents[1]


def thin_out(manifest: Path, target: Path, photos: int) -> None:
    """Write every so-many-th line of a manifest, so that an epoch takes seconds."""
    head, *lines = manifest.read_text(encoding="utf-8").splitlines()
    kept = lines[:: max(1, len(lines) // photos)]
    target.write_text("\n".join([head, *kept, ""]), encoding="utf-8")


def write_params(target: Path, size: int, epochs: int) -> None:
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    settings["train"] |= {"sizes": [size], "size_shares": [1.0], "image_size": size, "minutes": None, "epochs": epochs}
    settings["train"] |= {"tracking": False, "outliers": None}
    settings["data"]["doubtful_up_to"] = 0
    target.write_text(yaml.safe_dump(settings), encoding="utf-8")


def images_per_second(folder: Path, processes: int, size: int) -> float:
    """Train, and return the median over all epochs but the first."""
    options = ["--manifest", str(folder / "manifest.csv"), "--params", str(folder / f"{size}.yaml"), "--fresh"]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [
        sys.executable,
        "-W",
        "ignore",
        *launcher,
        "-m",
        "training.train",
        "--output",
        str(folder / "weights.pt"),
        *options,
    ]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    history = torch.load(folder / "weights.pt", weights_only=True)["history"]
    return statistics.median(epoch["images_per_second"] for epoch in history[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 144])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        thin_out(args.manifest, folder / "manifest.csv", args.photos)
        for size in args.sizes:
            write_params(folder / f"{size}.yaml", size, args.epochs)
            pairs = [[images_per_second(folder, count, size) for count in (1, args.processes)] for _ in range(args.rounds)]
            one, several = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append({"size": size, "one": one, "several": several, "ratio": several / one})
    print(f"commit {git_commit()}, {describe_machine()}")
    print(f"size  one process  {args.processes} processes  ratio (images/s, photos kept at {ROOM} times the size)")
    for row in rows:
        print(f"{row['size']:4d}  {row['one']:11.0f}  {row['several']:11.0f}  {row['ratio']:5.2f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
