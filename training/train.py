"""The training loop: manifest -> build/weights.pt. Killed at any moment, the same command continues."""

import argparse
import copy
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from training.augment import augment, mix
from training.config import PARAMS, TrainConfig, load_params
from training.dataset import close_pool, load_others, load_split, spread
from training.errors import UserError, run_cli
from training.features import fit_head, pooled_features
from training.files import replace_atomically
from training.learner import Learner
from training.manifest import Manifest
from training.memory import keep_memory
from training.network import build_network, continue_from, count_parameters, read_checkpoint
from training.optimizer import Optimizers
from training.paths import CACHE, MANIFEST, WEIGHTS
from training.provenance import git_commit, versions
from training.tracking import Run, origin, run_name, status_told

CHECKPOINT = "checkpoint.pt"
PLAIN = 500  # training photos whose loss without augmentation is measured after each epoch, as validation's is
ROOM = 1.25  # photos are kept this much larger than the crops taken from them
FEW = 500  # training photos; with 70 the head alone was right more often, and with all of them less (docs/experiments.md)
HEAD_PHOTOS = 8000  # enough for the linear head that a pretrained network starts with


class Rank:
    """This process among those that torchrun started, or alone."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if self.count > 1:
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        return self.index == 0

    def wrap(self, learner: Learner) -> nn.Module:
        """Return the learner, its gradients averaged over all processes, and its weights those of the first."""
        return DistributedDataParallel(learner) if self.count > 1 else learner

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of every process's values."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values / self.count

    def of_first(self, value: float) -> float:
        """Return the first process's value: clocks differ, and all must stop at the same step."""
        if self.count == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return told.item()

    def wait(self) -> None:
        if self.count > 1:
            distributed.barrier()

    def close(self) -> None:
        if self.count > 1:
            distributed.destroy_process_group()


class Schedule:
    """Where the run stands, from 0 to 1: by epochs, or by minutes when there is a time budget."""

    def __init__(self, config: TrainConfig, photos: int, epochs: int, seconds_before: float) -> None:
        self.config = config
        self.steps = epochs * max(1, photos // batch_size(config, photos))
        self.started = time.monotonic() - seconds_before

    @property
    def head_only(self) -> bool:
        return self.config.minutes is None and self.steps == 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def progress(self, step: int) -> float:
        if self.config.minutes is not None:
            return min(self.seconds / (60 * self.config.minutes), 1)
        return step / self.steps if self.steps else 1

    def seconds_left(self, progress: float) -> float:
        return self.seconds * (1 - progress) / max(progress, 1e-6)

    def learning_rate(self, progress: float) -> float:
        """Return the share of the peak learning rate: up, then straight down to zero."""
        warmup = self.config.warmup
        return min((progress + 1e-3) / warmup if warmup else 1, (1 - progress) / (1 - warmup))

    def size(self, progress: float) -> int:
        """Return the training size of this part of the run."""
        end = 0.0
        for size, share in zip(self.config.sizes, self.config.size_shares, strict=True):
            end += share
            if progress < end - 1e-9:
                return size
        return self.config.sizes[-1]


def epochs_for(photos: int, new_head: bool) -> int:
    """Return how often to see the photos, if nobody said: 1,000 of them 8 times, very many 5 times.

    Few photos teach a pretrained network less than they make it forget: then the new linear head is all that learns.
    """
    return 0 if new_head and photos < FEW else min(15, round(4.5 + 3000 / photos))


def batch_size(config: TrainConfig, photos: int) -> int:
    """Return the wanted size; for few photos less, so that an epoch still has some steps."""
    return min(config.batch_size, max(8, photos // 8))


class Trainer:
    """Everything that a run has and that a checkpoint keeps."""

    def __init__(self, config: TrainConfig, manifest: Manifest, output: Path, rank: Rank) -> None:
        self.config, self.manifest, self.rank, self.output = config, manifest, rank, output
        self.commit = git_commit()  # of the code that trains: the files may change before it ends
        self.cache = output.parent / CACHE.name
        torch.manual_seed(config.seed)
        network = build_network(config.network, len(manifest.labels), config.pretrained)
        self.network = network.to(rank.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = Learner(self.network, config.frozen, config.remember > 0).to(rank.device)
        has_head = config.start_from is not None and continue_from(Path(config.start_from), self.network, manifest.labels)
        self.lacks_head = not has_head and (config.pretrained or config.start_from is not None)
        self.average = copy.deepcopy(self.network).eval()
        self.precision = choose_precision(config.precision, rank.device)
        self.optimizers = Optimizers(
            self.network,
            config.learning_rate,
            config.learning_rate_other,
            config.weight_decay,
            config.optimizer == "muon",
            torch.bfloat16 if self.precision == "bf16" else torch.float32,
        )
        self.history: list[dict[str, float]] = []
        self.step = self.epoch = 0
        self.seconds = 0.0
        self.finished = False
        self.run_id: str | None = None
        self.tracked: Run | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must have been made with to be continued."""
        settings = {name: value for name, value in asdict(self.config).items() if name != "tracking"}
        return {**settings, "photos": self.manifest.digest, "processes": self.rank.count}

    @property
    def epochs(self) -> int:
        if self.config.epochs is not None:
            return self.config.epochs
        return epochs_for(len(self.manifest.split("train")), self.lacks_head)

    def photos(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the training photos, a little larger than `size`, where the network is."""
        pixels, labels = load_split(self.manifest, "train", round(size * ROOM), self.cache)
        if self.rank.device.type == "cuda":
            pixels = pixels.to(self.rank.device)
        return pixels, labels.to(self.rank.device)

    def run(self) -> None:
        """Train from where the checkpoint stands to the end."""
        if self.rank.first:  # decodes once; the others then find the file
            self.prepare()
        self.rank.wait()
        pixels_of_size: tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        validation = load_split(self.manifest, "val", self.config.image_size, self.cache)
        schedule = Schedule(self.config, len(self.manifest.split("train")), self.epochs, self.seconds)
        self.start_tracking()
        if (self.lacks_head or schedule.head_only) and self.step == 0:
            self.start_head()
        wrapped = self.rank.wrap(self.learner)
        while not self.finished:
            size = schedule.size(schedule.progress(self.step))
            if pixels_of_size is None or pixels_of_size[0] != size:
                pixels_of_size = (size, *self.photos(size), self.others(size))
            some = (spread(pixels_of_size[1], PLAIN).cpu(), spread(pixels_of_size[2], PLAIN).cpu())  # where validation's are
            if schedule.head_only:
                self.stand_for_an_epoch(some)
            else:
                self.train_epoch(wrapped, schedule, size, *pixels_of_size[1:])
            self.finish_epoch(schedule, size, validation, some)
        self.save_weights()

    def start_head(self) -> None:
        """Fit the last layer to what the network sees already: the gradients of a random one would destroy that."""
        if not self.rank.first:  # the others are given its weights
            return
        pixels, labels = self.photos(self.config.sizes[-1])
        chosen = some_of_each(labels.cpu(), HEAD_PHOTOS, torch.Generator().manual_seed(self.config.seed))
        parts = tqdm(chosen.to(pixels.device).split(64), desc="fitting the head", unit="batch", disable=None)
        seen = pooled_features(self.average, (resized(pixels[part], self.config.image_size) for part in parts))
        head = fit_head(seen.cpu(), labels.cpu()[chosen], len(self.manifest.labels))
        for network in (self.network, self.average):
            network.classifier.load_state_dict(head._asdict())

    def stand_for_an_epoch(self, photos: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Leave the head's figures where an epoch would leave its own."""
        started = time.monotonic()
        loss, accuracy = self.validate(self.config.image_size, *photos)
        speed = len(photos[1]) / (time.monotonic() - started)
        self.last = {"train_loss": loss, "train_accuracy": accuracy, "images_per_second": speed, "learning_rate": 0.0}

    def others(self, size: int) -> torch.Tensor | None:
        """Return the half of the other things' photos that may be learned from."""
        if self.config.outliers is None:
            return None
        return load_others(Path(self.config.outliers), round(size * ROOM), "learn").to(self.rank.device)

    def start_tracking(self) -> None:
        """Open this training's run, the old one if it continues; epochs that it lacks are told it now."""
        if not (self.rank.first and self.config.tracking):
            return
        known = self.run_id is not None
        name = run_name(replace(self.config, epochs=self.epochs), len(self.manifest.split("train")))
        self.tracked = Run(self.run_id, name=name)
        self.run_id = self.tracked.id
        if not known:
            tags = {"git_commit": self.commit, "data_digest": self.manifest.digest, **versions(), **origin(self.commit)}
            self.tracked.log_params(asdict(self.config))
            self.tracked.set_tags(tags)
            self.tracked.log_photos(self.manifest)
        if not self.finished:
            self.tracked.start()
        self.tracked.log_epochs(self.history)

    def prepare(self) -> None:
        for size in self.config.sizes:
            load_split(self.manifest, "train", round(size * ROOM), self.cache)
        load_split(self.manifest, "val", self.config.image_size, self.cache)
        close_pool()

    def train_epoch(
        self,
        wrapped: nn.Module,
        schedule: Schedule,
        size: int,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        others: torch.Tensor | None,
    ) -> None:
        """Go through the photos once, or until the time is up; leaves its figures in `self.last`."""
        config, device = self.config, self.rank.device
        shuffle = torch.Generator().manual_seed(config.seed * 1_000_003 + self.epoch)
        # every process draws its own views, of its own share of each batch
        views = torch.Generator(device).manual_seed((config.seed * 1_000_003 + self.epoch) * 97 + self.rank.index)
        size_of_batch = batch_size(config, len(labels))
        batches = list(batches_of(len(labels), size_of_batch, shuffle))
        total = torch.zeros(3, device=device)
        started = time.monotonic()
        from_scratch = not config.pretrained and config.start_from is None
        self.network.train(from_scratch)  # the statistics of a pretrained network's batch normalisation are kept
        bar = tqdm(batches, desc=f"epoch {self.epoch + 1} at {size} px", unit="step", disable=None if self.rank.first else True)
        for batch in bar:
            progress = self.rank.of_first(schedule.progress(self.step))
            if progress >= 1:
                break
            mine = batch[self.rank.index :: self.rank.count]
            photos, truth = pixels[mine.to(pixels.device)].to(device), labels[mine.to(device)]
            targets = functional.one_hot(truth, len(self.manifest.labels)).float()
            if others is not None:
                photos, targets = self.add_others(photos, targets, others, shuffle)
            photos = augment(photos, size, config, views)
            mixed = torch.rand(1, generator=shuffle).item() < config.mixup
            if mixed:
                photos, targets = mix(photos, targets, views)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits, forgotten = wrapped(photos)
            loss = functional.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
            (loss + config.remember * forgotten).backward()
            self.optimizers.step(schedule.learning_rate(progress))
            self.step += 1
            self.follow()
            hits = (logits[: len(truth)].argmax(1) == targets[: len(truth)].argmax(1)).float().mean()
            total += torch.stack([loss.detach(), hits, torch.ones_like(loss)])
            bar.set_postfix_str(progress_line(total, schedule, progress, started, size_of_batch), refresh=False)
        bar.close()
        seconds = time.monotonic() - started
        loss_sum, hit_sum, steps = self.rank.mean(total).tolist()
        self.last = {
            "train_loss": loss_sum / max(steps, 1),
            "train_accuracy": hit_sum / max(steps, 1),
            "images_per_second": steps * size_of_batch / seconds,
            "learning_rate": config.learning_rate * schedule.learning_rate(schedule.progress(self.step)),
        }

    def add_others(
        self, photos: torch.Tensor, targets: torch.Tensor, others: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add some photos of other things, for which every label is equally wrong."""
        count = max(1, round(len(photos) * self.config.outlier_share))
        chosen = torch.randint(len(others), (count,), generator=generator).to(others.device)
        undecided = torch.full((count, targets.shape[1]), 1 / targets.shape[1], device=targets.device)
        return torch.cat([photos, others[chosen]]), torch.cat([targets, undecided])

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average of the weights follow the weights: slower as the run gets longer."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - decay)
            else:
                slow.copy_(fast)

    def finish_epoch(
        self,
        schedule: Schedule,
        size: int,
        validation: tuple[torch.Tensor, torch.Tensor],
        training: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """Validate, tell, and keep a checkpoint."""
        self.epoch += 1
        self.finished = self.rank.of_first(schedule.progress(self.step)) >= 1
        seen_at = min(round(size * ROOM), self.config.image_size)
        loss, accuracy = self.validate(seen_at, *validation)
        plain, _ = self.validate(seen_at, *training)
        self.seconds = schedule.seconds
        losses = {"train_loss_plain": plain, "val_loss": loss}
        self.history.append(
            {"epoch": self.epoch, "size": size, **self.last, **losses, "val_accuracy": accuracy, "seconds": self.seconds}
        )
        if self.rank.first:
            print(epoch_line(self.history[-1]), flush=True)
            if self.tracked:
                self.tracked.log_epochs(self.history[-1:])
            self.save_checkpoint()

    @torch.inference_mode()
    def validate(self, size: int, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """Return loss and accuracy of the averaged weights."""
        device, loss, hits = self.rank.device, 0.0, 0
        for photos, truth in zip(pixels.split(250), labels.split(250), strict=True):
            seen = resized(photos.to(device), size)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self.average(seen).float().cpu()
            loss += functional.cross_entropy(logits, truth, reduction="sum").item()
            hits += int((logits.argmax(1) == truth).sum())
        return loss / len(labels), hits / len(labels)

    def save_checkpoint(self) -> None:
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "history": self.history,
            "step": self.step,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "finished": self.finished,
            "run_id": self.run_id,
            "commit": self.commit,
        }
        replace_atomically(self.output.with_name(CHECKPOINT), lambda path: torch.save(state, path))

    def resume(self, path: Path) -> None:
        """Continue from the checkpoint, if there is one of this very configuration."""
        if not path.exists():
            return
        state = read_checkpoint(path, "start anew with `make train FRESH=1`")
        theirs, ours = state.get("identity", {}), self.identity
        if changed := [key for key in ours if theirs.get(key) != ours[key]]:
            differences = ", ".join(f"{key} {theirs.get(key)!r} -> {ours[key]!r}" for key in changed)
            raise UserError(
                f"{path} belongs to another configuration ({differences}); "
                "undo the change to continue it, or start anew with `make train FRESH=1`"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state_dict(state["optimizers"])
        for name in ("history", "step", "epoch", "seconds", "finished", "run_id", "commit"):
            setattr(self, name, state[name])
        if self.rank.first:
            print(f"continuing after epoch {self.epoch}, {self.seconds / 60:.1f} minutes in")

    def save_weights(self) -> None:
        if not self.rank.first:
            return
        content = {
            "network": self.config.network,
            "labels": self.manifest.labels,
            "image_size": self.config.image_size,
            "state_dict": self.average.state_dict(),
            "config": asdict(self.config),
            "seed": self.config.seed,
            "history": self.history,
            "data_digest": self.manifest.digest,
            "git_commit": self.commit,
            "versions": versions(),
            "seconds": self.seconds,
            "mlflow_run": self.run_id,
        }
        replace_atomically(self.output, lambda path: torch.save(content, path))
        final = self.history[-1]
        print(
            f"{self.output}: {count_parameters(self.network):,} parameters, validation accuracy "
            f"{final['val_accuracy']:.2%} after {self.seconds / 60:.1f} minutes"
        )


def batches_of(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the numbers below `count` in random order, in whole batches (or one smaller than that)."""
    order = torch.randperm(count, generator=generator)
    whole = max(count // size * size, min(count, size))
    return iter(order[:whole].split(size))


def some_of_each(labels: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers of about `count` photos, as many of each label as there are."""
    each = -(-count // len(labels.unique()))
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == label][:each] for label in labels.unique()]).sort().values


def resized(photos: torch.Tensor, size: int) -> torch.Tensor:
    if photos.shape[-1] == size:
        return photos
    return functional.interpolate(photos.float(), (size, size), mode="bilinear", antialias=True)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return bf16 where the processor computes in it, else fp32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def progress_line(total: torch.Tensor, schedule: Schedule, progress: float, started: float, batch: int) -> str:
    loss, hits, steps = total.tolist()
    speed = steps * batch / max(time.monotonic() - started, 1e-6)
    left = schedule.seconds_left(progress)
    return f"loss {loss / steps:.3f}, right {hits / steps:.1%}, {speed:.0f} images/s, {math.ceil(left / 60)} min left"


def epoch_line(epoch: dict[str, float]) -> str:
    return (
        f"epoch {epoch['epoch']:.0f} at {epoch['size']:.0f} px: loss {epoch['train_loss_plain']:.3f} on training photos, "
        f"{epoch['val_loss']:.3f} on validation photos; validation accuracy {epoch['val_accuracy']:.2%}; "
        f"{epoch['images_per_second']:.0f} images/s; {epoch['seconds'] / 60:.1f} min"
    )


def train(config: TrainConfig, manifest: Manifest, output: Path = WEIGHTS, fresh: bool = False) -> list[dict[str, float]]:
    """Train to the end, continuing if a checkpoint lies beside `output`; returns the epochs' figures."""
    rank = Rank()
    trainer = Trainer(config, manifest, output, rank)
    if not fresh:
        trainer.resume(output.with_name(CHECKPOINT))
    with status_told(trainer):
        trainer.run()
    rank.close()
    return trainer.history


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of photos, as `make data` writes it")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="weights to write")
    parser.add_argument("--outliers", help="photos of other things to learn from, instead of train.outliers")
    parser.add_argument("--minutes", type=float, help="a time budget, instead of train.minutes")
    parser.add_argument("--fresh", action="store_true", help="start anew, whatever checkpoint there is")
    args = parser.parse_args(argv)
    keep_memory()
    config = load_params(args.params).train
    config = replace(config, outliers=args.outliers or config.outliers, minutes=args.minutes or config.minutes)
    train(config, Manifest.read(args.manifest), args.output, args.fresh)


if __name__ == "__main__":
    run_cli(main)
