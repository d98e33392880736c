"""Images per second of the whole training step against forward and backward on one batch held in memory.

The two are timed in turn, round by round, so that both see the same machine; the ratio of medians counts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import training  # noqa: F401  before torch: it decides how OpenMP's threads wait

# isort: split
import torch
from torch.nn import functional

from training.augment import augment, mix
from training.config import load_params
from training.learner import Learner
from training.memory import keep_memory
from training.network import build_network
from training.optimizer import Optimizers
from training.train import ROOM, choose_precision


def seconds(action: Callable[[], None], steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        action()
    return (time.perf_counter() - started) / steps


def measure(size: int, rounds: int, steps: int) -> dict[str, float]:
    """Return both speeds at one training size, in images per second."""
    config = load_params().train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.bfloat16 if choose_precision(config.precision, device) == "bf16" else torch.float32
    network = build_network(config.network, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = Learner(network, config.frozen, config.remember > 0).to(device).train(not config.pretrained)
    rates = (config.learning_rate, config.learning_rate_other, config.weight_decay)
    optimizers = Optimizers(network, *rates, config.optimizer == "muon", precision)
    generator = torch.Generator(device).manual_seed(0)
    kept = round(size * ROOM)
    photos = torch.randint(0, 256, (2048, 3, kept, kept), dtype=torch.uint8, device=device)
    batch, targets = (
        photos[: config.batch_size, :, :size, :size].float(),
        torch.eye(2, device=device)[torch.arange(config.batch_size) % 2],
    )

    def forward_backward(views: torch.Tensor, truth: torch.Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
            logits, forgotten = learner(views)
        (functional.cross_entropy(logits.float(), truth) + config.remember * forgotten).backward()

    def in_memory() -> None:
        forward_backward(batch, targets)

    def whole() -> None:
        chosen = torch.randint(0, len(photos), (config.batch_size,), device=device)
        views, truth = augment(photos[chosen], size, config, generator), targets
        if torch.rand(1, generator=generator, device=device).item() < config.mixup:
            views, truth = mix(views, truth, generator)
        forward_backward(views, truth)
        optimizers.step(1e-6)

    for action in (in_memory, whole):
        seconds(action, 2)
    times = [(seconds(in_memory, steps), seconds(whole, steps)) for _ in range(rounds)]
    best, ours = (config.batch_size / statistics.median(column) for column in zip(*times, strict=True))
    return {"size": size, "in_memory": best, "training": ours, "ratio": ours / best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind in a round")
    args = parser.parse_args()
    keep_memory()
    rows = [measure(size, args.rounds, args.steps) for size in load_params().train.sizes]
    print("size  in memory  training  ratio (images/s, medians)")
    for row in rows:
        print(f"{row['size']:4.0f}  {row['in_memory']:9.0f}  {row['training']:8.0f}  {row['ratio']:5.2f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
