"""build/weights.pt -> build/calibration.pt: temperature, thresholds, unlike score and int8 form, chosen on validation photos.

Nothing here opens a test photo, or the photos that training/evaluate.py measures other things by.
"""

import argparse
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.calibrate import fit_distance, fit_imagenet, fit_linear, fit_temperature, synthetic_others
from training.config import PARAMS, EvaluateConfig, load_params
from training.conformal import Wanted, choose_threshold
from training.dataset import load_others, load_split, spread
from training.errors import run_cli
from training.figures import Promise
from training.fitted import Calibration, Fitted, digest, write_calibration
from training.manifest import Manifest
from training.measures import Array
from training.memory import keep_memory
from training.network import Network, load_weights
from training.paths import CALIBRATION, MANIFEST, WEIGHTS
from training.quantise import EXAMPLES, quantise
from training.seen import Seen, look, read_all, statistics

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SAMPLE = 3000  # training photos that the unlike score sees


@dataclass
class Photos:
    """What a form of the network is fitted on, as pixels and label numbers."""

    validation: tuple[torch.Tensor, torch.Tensor]
    training: tuple[torch.Tensor, torch.Tensor]
    others: torch.Tensor | None
    statistics: dict[str, Array]  # of the validation photos


def read_photos(manifest: Manifest, size: int, cache: Path, outliers: str | None) -> Photos:
    validation = load_split(manifest, "val", size, cache)
    others = load_others(Path(outliers), size, "learn") if outliers else None
    return Photos(validation, sample(manifest, size, SAMPLE), others, statistics(validation[0], manifest.split("val")))


def sample(manifest: Manifest, size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some training photos, the same ones every time, as many of each label as there are."""
    each = -(-count // len(manifest.labels))
    by_content = sorted(manifest.split("train"), key=lambda row: row.sha256)
    rows = [row for label in manifest.labels for row in [row for row in by_content if row.label == label][:each]]
    return read_all([row.path for row in rows], size), torch.tensor([manifest.labels.index(row.label) for row in rows])


def fit(manifest: Manifest, weights: Path, config: EvaluateConfig, calibration: Path) -> Calibration:
    """Choose everything that is chosen after training, for both forms of the network, and write it."""
    network, saved = load_weights(weights)
    manifest.require_weights(weights, saved)
    remembers = saved["config"].get("remember", 0) > 0
    outliers = None if remembers else config.outliers  # ImageNet's head needs no photos of other things
    photos = read_photos(manifest, saved["image_size"], weights.parent / "cache", outliers)
    validation, fp32 = fit_form(network, photos, manifest.labels, config, remembers)
    int8, int8_network = fit_int8(network, validation, photos, manifest.labels, config, remembers)
    chosen = Calibration(weights=digest(weights), fp32=fp32, int8=int8, int8_network=int8_network)
    write_calibration(calibration, chosen)
    return chosen


def fit_form(network: Network, photos: Photos, labels: list[str], config: EvaluateConfig, remembers: bool) -> tuple[Seen, Fitted]:
    """Fit one form of the network; returns what it makes of the validation photos, too."""
    validation, training = look(network, *photos.validation), look(network, *photos.training)
    kind, unlike = fit_unlike(network, validation, training, photos.others, remembers)
    with torch.inference_mode():
        scores = unlike(validation.summaries)
    temperature, unlike_above, unsure_below, promise = choose(validation.logits, validation.truth, scores, config)
    return validation, Fitted(
        temperature=temperature,
        unsure_below=unsure_below,
        promise=promise,
        unlike={"kind": kind, "numbers": dict(unlike.named_buffers())},
        unlike_above=unlike_above,
        fitted_on_other_things=kind == "linear",
        reference=reference(photos.statistics, validation.probabilities(temperature), scores.numpy(), labels),
    )


def choose(
    logits: torch.Tensor, truth: torch.Tensor, unlike: torch.Tensor, config: EvaluateConfig
) -> tuple[float, float, float, Promise]:
    """Return temperature, thresholds of unlike and of confidence, and the promise, from answers to validation photos."""
    temperature = fit_temperature(logits, truth)
    unlike_above = float(unlike[1::2].quantile(1 - config.refuse))  # the score may have been fitted on the other half
    confidence, answers = torch.softmax(logits / temperature, 1).max(1)
    like = unlike <= unlike_above  # the others are `unsure` whatever the confidence
    wanted = Wanted(config.wrong_when_sure, config.promise_confidence)
    unsure_below, promise = choose_threshold(confidence[like].numpy(), (answers != truth)[like].numpy(), wanted)
    return temperature, unlike_above, unsure_below, promise


def fit_unlike(
    network: Network, validation: Seen, training: Seen, others: torch.Tensor | None, remembers: bool
) -> tuple[str, nn.Module]:
    """Return the unlike score and its kind: by ImageNet's head where the features remember it, else learned or by distance."""
    if remembers:
        return "imagenet", fit_imagenet(training.summaries)
    if others is None:
        return "distance", fit_distance(training.summaries, training.truth)
    other = look(network, torch.cat([views(others), synthetic_others(others.shape[-1], 64)]))
    half = validation.summaries[::2]  # the threshold is chosen on the other half
    return "linear", fit_linear(torch.cat([training.summaries, half]), other.summaries)


def views(photos: torch.Tensor) -> torch.Tensor:
    """Return the photos, mirrored ones, and their middles: more to fit with."""
    size = photos.shape[-1]
    cuts = [photos, photos.flip(3)]
    for margin in (size // 10, size // 5):
        inner = photos[:, :, margin : size - margin, margin : size - margin].float()
        cuts.append(functional.interpolate(inner, (size, size), mode="bilinear").to(torch.uint8))
    return torch.cat(cuts)


def fit_int8(
    network: Network, validation: Seen, photos: Photos, labels: list[str], config: EvaluateConfig, remembers: bool
) -> tuple[Fitted | None, bytes | None]:
    """Return what fits the network in int8, and that network; or nothing, if it loses by it or cannot be had so."""
    try:
        quantised = quantise(network, spread(photos.validation[0], EXAMPLES))
        int8, fitted = fit_form(quantised, photos, labels, config, remembers)
        script = as_script(quantised)
    except Exception as error:  # which networks torch's tracing takes is not ours to know
        print(f"this network cannot be had in int8, and will be released in fp32 only: {type(error).__name__}: {error}")
        return None, None
    loss = accuracy(validation) - accuracy(int8)
    if loss > config.int8_loss:
        print(
            f"in int8 it loses {loss:.2%} of validation accuracy (limit {config.int8_loss:.2%}, evaluate.int8_loss), and will be released in fp32 only"
        )
        return None, None
    return fitted, script


def accuracy(seen: Seen) -> float:
    return float((seen.logits.argmax(1) == seen.truth).double().mean())


def as_script(network: Network) -> bytes:
    """Return a network as TorchScript: weights alone do not bring a quantised one back."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer)
    return buffer.getvalue()


def reference(statistics: dict[str, Array], probabilities: Array, unlike: Array, labels: list[str]) -> dict[str, Any]:
    """Return what validation photos are like, for a server to notice when its own are not."""
    aspect = statistics["width"] / statistics["height"]
    numbers = {**statistics, "aspect": aspect, "confidence": probabilities.max(1), "unlike": unlike}
    described = {
        name: {"mean": float(value.mean()), "std": float(value.std()), "quantiles": np.quantile(value, QUANTILES).tolist()}
        for name, value in numbers.items()
    }
    answers = probabilities.argmax(1)
    share = {label: float((answers == index).mean()) for index, label in enumerate(labels)}
    return {**described, "quantile_levels": list(QUANTILES), "label_share": share, "photos": len(answers)}


def in_words(promise: Promise, unsure_below: float) -> str:
    """Return what is promised of sure answers, or that nothing is."""
    limit, confidence = f"{promise.wrong_when_sure:.2%}", f"{promise.confidence:.0%}"
    counted = f"{promise.wrong:,} of {promise.sure:,} validation photos above it are answered wrong"
    if promise.kept:
        return f"unsure below {unsure_below:.4f}: at most {limit} of the sure answers are wrong, with {confidence} confidence ({counted})"
    return (
        f"unsure below {unsure_below:.4f}, but nothing is promised of the sure answers: {counted}, which does not show "
        f"with {confidence} confidence that at most {limit} are; more validation photos or a better model would"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of photos, as `make data` writes it")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="trained weights; calibration.pt is written beside them")
    parser.add_argument("--outliers", help="photos of other things, instead of evaluate.outliers")
    args = parser.parse_args(argv)
    keep_memory()
    config = load_params(args.params).evaluate
    config = replace(config, outliers=args.outliers or config.outliers)
    chosen = fit(Manifest.read(args.manifest), args.weights, config, args.weights.parent / CALIBRATION.name)
    print(f"temperature {chosen.fp32.temperature:.3f}; {in_words(chosen.fp32.promise, chosen.fp32.unsure_below)}")


if __name__ == "__main__":
    run_cli(main)
