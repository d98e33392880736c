"""petclf.pt as it is, in bf16 and in int8: milliseconds for one photo on one thread, and accuracy on test photos."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training  # noqa: F401  before torch: it decides how OpenMP's threads wait

# isort: split
import torch

from training.dataset import load_split
from training.manifest import Manifest
from training.network import Network, load_weights
from training.paths import MANIFEST, WEIGHTS
from training.quantise import EXAMPLES, quantise


def in_bf16(network: Network) -> Callable[[torch.Tensor], torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        traced = torch.jit.trace(network, torch.zeros(1, 3, 160, 160, dtype=torch.uint8), check_trace=False)
    return torch.jit.freeze(traced)


def in_fp32(network: Network) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.jit.optimize_for_inference(torch.jit.script(network))


def in_int8(network: Network, examples: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.jit.optimize_for_inference(torch.jit.script(quantise(network, examples)))


def milliseconds(run: Callable[[torch.Tensor], torch.Tensor], photo: torch.Tensor, rounds: int = 60) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run(photo)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[rounds // 3 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    args = parser.parse_args()
    network, saved = load_weights(args.weights)
    manifest = Manifest.read(args.manifest)
    photos, truth = load_split(manifest, "test", saved["image_size"])
    examples, _ = load_split(manifest, "val", saved["image_size"])
    rows: list[dict[str, Any]] = []
    cores = torch.get_num_threads()
    with torch.inference_mode():
        forms = {"fp32": in_fp32(network), "bf16": in_bf16(network), "int8": in_int8(network, examples[:EXAMPLES])}
        for name, run in forms.items():
            torch.set_num_threads(1)
            time_of_one = milliseconds(run, photos[:1])  # before anything else: int8's kernels are made for the first size seen
            torch.set_num_threads(cores)
            right = torch.cat(
                [run(part).argmax(1) == labels for part, labels in zip(photos.split(64), truth.split(64), strict=True)]
            )
            rows.append({"form": name, "milliseconds": time_of_one, "accuracy": float(right.float().mean())})
    for row in rows:
        print(
            f"{row['form']}: {row['milliseconds']:.2f} ms a photo, one thread; accuracy {row['accuracy']:.2%} of {len(truth):,}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
