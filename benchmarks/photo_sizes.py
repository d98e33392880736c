"""Which size should photos have for the model? Accuracy and time of both forms at several, beside an earlier model's time."""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import training  # noqa: F401  before torch: it decides how OpenMP's threads wait

# isort: split
import matplotlib as mpl
import torch

from benchmarks.record import record_path, write_record
from handler.classifier import choose_int8_kernels
from training.dataset import load_split, spread
from training.evaluate import read_folder
from training.manifest import Manifest
from training.memory import keep_memory
from training.network import Network, load_weights
from training.paths import MANIFEST, WEIGHTS
from training.quantise import EXAMPLES, quantise

mpl.use("Agg")
from matplotlib import pyplot as plt

SIZES = (128, 144, 160, 176, 192)
AT_ONCE = (1, 8)
ROUNDS, CALLS = 9, 8
Run = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Row:
    """One form at one size: accuracy by set of photos, and the time of one photo as a share of the earlier model's."""

    form: str
    size: int
    accuracy: dict[str, float]
    times: dict[int, float]

    def cells(self) -> str:
        right = " | ".join(f"{value:.2%}" for value in self.accuracy.values())
        return f"| {self.size} | {self.form} | {right} | {' | '.join(f'{self.times[count]:.2f}' for count in AT_ONCE)} |"


def as_served(make: Callable[[], torch.jit.ScriptModule]) -> Run:
    """Return a form as the handler asks it: eight photos as four and four, each count with a copy of its own."""
    copies = {count: torch.jit.freeze(make().eval()) for count in (1, 4)}

    def run(photos: torch.Tensor) -> None:
        for part in photos.split(4):
            copies[len(part)](part)

    return run


def seconds(run: Run, photos: torch.Tensor) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        run(photos)
    return (time.perf_counter() - started) / CALLS


def shares(forms: dict[tuple[str, int], Run], before: Run, size_before: int) -> dict[tuple[str, int], dict[int, float]]:
    """Return each form's time by photos at once, in turns with the earlier model's and as a share of it; medians."""
    torch.set_num_threads(1)
    found: dict[tuple[str, int], dict[int, float]] = {key: {} for key in forms}
    with torch.inference_mode():
        for count in AT_ONCE:
            photos = {size: torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8) for size in {*SIZES, size_before}}
            turns: dict[tuple[str, int], list[float]] = {key: [] for key in forms}
            for _ in range(ROUNDS):
                for key, run in forms.items():
                    earlier = seconds(before, photos[size_before])
                    turns[key].append(seconds(run, photos[key[1]]) / earlier)
            for key, values in turns.items():
                found[key][count] = statistics.median(values[ROUNDS // 3 :])
    return found


def accuracy(network: Network, photos: torch.Tensor, truth: torch.Tensor) -> float:
    with torch.inference_mode():
        answers = torch.cat([network(part).argmax(1) for part in photos.split(64)])
    return float((answers == truth).double().mean())


def draw(rows: list[Row], path: Path) -> None:
    plt.figure(figsize=(6, 4))
    for form, marker in (("int8", "o"), ("fp32", "s")):
        mine = [row for row in rows if row.form == form]
        plt.plot([row.times[1] for row in mine], [row.accuracy["val"] for row in mine], marker=marker, label=form)
        for row in mine:
            plt.annotate(
                f"{row.size} px", (row.times[1], row.accuracy["val"]), textcoords="offset points", xytext=(5, -10), fontsize=8
            )
    plt.title("Accuracy on validation photos against time, by the photo's size")
    plt.xlabel("time of one photo on one thread, as a share of the earlier model's int8")
    plt.ylabel("accuracy")
    plt.legend()
    plt.grid(alpha=0.3)
    plt.tight_layout()
    plt.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--camera", type=Path, help="another labelled folder or zip")
    parser.add_argument("--before", type=Path, required=True, help="a petclf-int8.pt to compare with")
    parser.add_argument("--size-before", type=int, default=160)
    args = parser.parse_args()
    keep_memory()
    network, _ = load_weights(args.weights)
    manifest = Manifest.read(args.manifest)
    cores = torch.get_num_threads()
    before = as_served(lambda: torch.jit.load(str(args.before)))  # with torch's kernels, as that model was served
    choose_int8_kernels()
    measured: dict[tuple[str, int], dict[str, float]] = {}
    runs: dict[tuple[str, int], Run] = {}
    for size in SIZES:
        sets = {split: load_split(manifest, split, size) for split in ("val", "test")}
        if args.camera:
            sets["camera"] = read_folder(args.camera, manifest.labels, size)
        for form, some in (("fp32", network), ("int8", quantise(network, spread(sets["val"][0], EXAMPLES)))):
            measured[form, size] = {name: accuracy(some, *photos) for name, photos in sets.items()}
            runs[form, size] = as_served(lambda some=some: torch.jit.script(some))  # type: ignore[misc]
    times = shares(runs, before, args.size_before)
    torch.set_num_threads(cores)
    rows = [Row(form, size, measured[form, size], times[form, size]) for form, size in sorted(runs, key=lambda key: key[::-1])]
    names = " | ".join(rows[0].accuracy)
    lines = [
        f"| px | form | {names} | 1 photo | 8 photos |",
        "|---" * (len(rows[0].accuracy) + 4) + "|",
        *(row.cells() for row in rows),
    ]
    draw(rows, record_path("photo_sizes").with_suffix(".png"))
    note = f"times are shares of {args.before.name} at {args.size_before} px in the same turn, medians of {ROUNDS - ROUNDS // 3}"
    print(write_record("photo_sizes", "Size of the photo for the model", "python -m benchmarks.photo_sizes", lines, note))


if __name__ == "__main__":
    main()
