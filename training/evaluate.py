"""build/weights.pt -> how good it is (reports/) and how sure it may be (build/calibration.pt)."""

import argparse
import hashlib
import io
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from handler.photo_input import decode_photo
from handler.statistics import photo_statistics
from training import baselines, measures
from training.calibrate import fit_distance, fit_linear, fit_temperature, synthetic_others
from training.compare import Known, live_model, read_known
from training.config import PARAMS, EvaluateConfig, load_params
from training.corruptions import CORRUPTIONS, corrupted
from training.dataset import load_others, load_split, pool
from training.errors import UserError, run_cli
from training.figures import Figures, from_json
from training.files import replace_atomically, write_atomically
from training.manifest import Manifest, Row, find_photos
from training.network import Network, count_parameters, load_weights
from training.paths import CALIBRATION, MANIFEST, REPORTS, WEIGHTS
from training.photos import read_bytes
from training.plots import Evidence
from training.quantise import EXAMPLES, LOSS, quantise
from training.released import summarise
from training.report import how_to_open, write_report

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass
class Seen:
    """What the network makes of some photos."""

    pixels: torch.Tensor
    truth: torch.Tensor
    logits: torch.Tensor
    summaries: torch.Tensor

    def probabilities(self, temperature: float) -> measures.Array:
        return torch.softmax(self.logits.double() / temperature, 1).numpy()


def look(network: Network, pixels: torch.Tensor, truth: torch.Tensor | None = None) -> Seen:
    """Run the photos through the network once."""
    logits, summaries = [], []
    with torch.inference_mode():
        for part in pixels.split(128):
            maps = network.stages(part)
            logits.append(network.classifier(maps[-1].mean((2, 3))))
            summaries.append(summarise(maps))
    truth = torch.zeros(len(pixels), dtype=torch.long) if truth is None else truth
    return Seen(pixels, truth, torch.cat(logits), torch.cat(summaries))


def read_all(paths: list[str], size: int, change: str | None = None) -> torch.Tensor:
    """Read photos as the server does, after a corruption if one is named."""
    read = partial(read_one, size=size, change=change)
    results = pool().map(read, paths, chunksize=16)
    photos = list(tqdm(results, total=len(paths), desc=change or "reading", unit="photo", disable=None))
    return torch.stack([torch.from_numpy(photo) for photo in photos])


def read_one(path: str, size: int, change: str | None) -> measures.Array:
    data = read_bytes(path)
    return decode_photo(corrupted(data, change) if change else data, size).numpy()


def views(photos: torch.Tensor) -> torch.Tensor:
    """Return the photos, mirrored ones, and their middles: more to fit with."""
    size = photos.shape[-1]
    cuts = [photos, photos.flip(3)]
    for margin in (size // 10, size // 5):
        inner = photos[:, :, margin : size - margin, margin : size - margin].float()
        cuts.append(functional.interpolate(inner, (size, size), mode="bilinear").to(torch.uint8))
    return torch.cat(cuts)


@dataclass
class Fitted:
    """What is found out about a network on photos that it did not learn from."""

    temperature: float
    unsure_below: float
    unlike: nn.Module
    unlike_above: float
    figures: dict[str, Any]
    pets: measures.Array  # the unlike scores of the test photos
    others: measures.Array | None  # and of the other things

    def saved(self) -> dict[str, Any]:
        """Return it as `build/calibration.pt` holds it."""
        kind = "linear" if self.figures["fitted_on_other_things"] else "distance"
        return {
            "temperature": self.temperature,
            "unsure_below": self.unsure_below,
            "unlike": {"kind": kind, "numbers": dict(self.unlike.named_buffers())},
            "unlike_above": self.unlike_above,
        }


def look_at_splits(network: Network, manifest: Manifest, size: int, cache: Path) -> dict[str, Seen]:
    """Return what the network makes of validation, test, and some training photos."""
    sets = {split: look(network, *load_split(manifest, split, size, cache)) for split in ("val", "test")}
    return {**sets, "train": look(network, *sample(manifest, size, 3000))}


def fit(
    network: Network, sets: dict[str, Seen], others: tuple[torch.Tensor, torch.Tensor] | None, config: EvaluateConfig
) -> Fitted:
    """Fit temperature, unlike score and thresholds; measure how the score tells other things from the labels' photos."""
    temperature = fit_temperature(sets["val"].logits, sets["val"].truth)
    probabilities = sets["val"].probabilities(temperature)
    unlike = fit_unlike(network, sets, others[0] if others else None)
    other_scores = None
    with torch.inference_mode():
        threshold = float(unlike(sets["val"].summaries[1::2]).quantile(1 - config.refuse))
        pets = unlike(sets["test"].summaries)
        figures = {"threshold": threshold, "fitted_on_other_things": bool(others)}
        figures["pets_refused"] = float((pets > threshold).float().mean())
        if others:
            strange = unlike(look(network, others[1]).summaries)
            truth = np.r_[np.zeros(len(pets)), np.ones(len(strange))]
            figures |= {"others_refused": float((strange > threshold).float().mean()), "others": len(strange)}
            figures["others_roc_auc"] = float(roc_auc_score(truth, torch.cat([pets, strange]).numpy()))
            other_scores = strange.numpy()
    unsure_below = measures.choose_unsure(sets["val"].truth.numpy(), probabilities, config.right_when_sure)
    return Fitted(temperature, unsure_below, unlike, threshold, figures, pets.numpy(), other_scores)


def fit_unlike(network: Network, sets: dict[str, Seen], others: torch.Tensor | None) -> nn.Module:
    """Return the unlike score: learned from other things if there are some, else by distance."""
    if others is None:
        return fit_distance(sets["train"].summaries, sets["train"].truth)
    size = others.shape[-1]
    nothing = synthetic_others(size, 64)
    other = look(network, torch.cat([views(others), nothing]))
    half = sets["val"].summaries[::2]  # the threshold is chosen on the other half
    return fit_linear(torch.cat([sets["train"].summaries, half]), other.summaries)


@dataclass
class Evaluation:
    """One form of the network, fitted and measured."""

    network: Network
    sets: dict[str, Seen]
    fitted: Fitted
    figures: dict[str, Any]
    content: dict[str, Any]


def evaluate_form(network: Network, manifest: Manifest, size: int, cache: Path, config: EvaluateConfig) -> Evaluation:
    """Fit and measure a network, whatever it computes in."""
    sets = look_at_splits(network, manifest, size, cache)
    others = load_others(Path(config.outliers), size) if config.outliers else None
    fitted = fit(network, sets, others, config)
    probabilities = {name: seen.probabilities(fitted.temperature) for name, seen in sets.items()}
    figures: dict[str, Any] = {
        split: measures.everything(sets[split].truth.numpy(), probabilities[split], manifest.labels) for split in ("val", "test")
    }
    figures |= {"temperature": fitted.temperature, "unsure_below": fitted.unsure_below, "unlike": fitted.figures}
    if config.photos:
        figures["camera_photos"] = measure_folder(network, Path(config.photos), manifest.labels, size, fitted.temperature)
    if config.scorecard_photos:
        figures["scorecard"] = scorecard(network, manifest, size, config.scorecard_photos)
    content = {**fitted.saved(), "reference": reference(sets["val"], manifest, probabilities["val"], fitted.unlike)}
    return Evaluation(network, sets, fitted, figures, content)


def evaluate(
    manifest: Manifest, weights: Path, config: EvaluateConfig, reports: Path, calibration: Path, before: Known | None = None
) -> dict[str, Any]:
    """Measure everything, write the report and the calibration, return the figures."""
    network, saved = load_weights(weights)
    if saved["labels"] != manifest.labels:
        raise UserError(f"{weights} knows {', '.join(saved['labels'])}, the manifest {', '.join(manifest.labels)}; train again")
    size, cache = saved["image_size"], weights.parent / "cache"
    trained = evaluate_form(network, manifest, size, cache, config)
    test, truth = trained.sets["test"], trained.sets["test"].truth.numpy()
    probabilities = test.probabilities(trained.fitted.temperature)
    figures: dict[str, Any] = {
        "labels": manifest.labels,
        "image_size": size,
        "parameters": count_parameters(network),
        "data_digest": manifest.digest,
        "photos": {split: len(manifest.split(split)) for split in ("train", "val", "test")},
        "training_minutes": saved["seconds"] / 60,
        **trained.figures,
        "calibration_error_before": measures.calibration_error(truth, test.probabilities(1.0)),
        "coverage": measures.coverage(truth, probabilities),
        "slices": measures.slices(truth, probabilities, statistics(test, manifest.split("test"))),
    }
    if config.baselines:
        pixels, labels = load_split(manifest, "train", size, cache)
        pairs = (pixels, labels, test.pixels, test.truth)
        figures["baselines"] = {"mean colour": baselines.mean_colour(*pairs), "20,000 parameters": baselines.tiny(*pairs)}
    int8 = evaluate_int8(trained, manifest, size, cache, config)
    if int8:
        figures["int8"] = int8.figures
    content = {
        **trained.content,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "int8": {**int8.content, "network": as_script(int8.network), "metrics": int8.figures} if int8 else None,
    }
    replace_atomically(calibration, lambda path: torch.save(content, path))
    evidence = Evidence(
        history=saved["history"],
        truth=truth,
        probabilities=probabilities,
        photos=test.pixels,
        unlike_pets=trained.fitted.pets,
        unlike_others=trained.fitted.others,
    )
    write_report(from_json(Figures, figures), evidence, reports, before)
    return figures


def evaluate_int8(trained: Evaluation, manifest: Manifest, size: int, cache: Path, config: EvaluateConfig) -> Evaluation | None:
    """Return the network in whole numbers, fitted and measured by itself; or nothing, if it loses by it or cannot be had so."""
    try:
        network = quantise(trained.network, trained.sets["val"].pixels[:EXAMPLES])
        int8 = evaluate_form(network, manifest, size, cache, config)
    except Exception as error:  # which networks torch's tracing takes is not ours to know
        print(f"this network cannot be had in int8, and will be released in fp32 only: {type(error).__name__}: {error}")
        return None
    loss = trained.figures["val"]["accuracy"] - int8.figures["val"]["accuracy"]
    if loss > LOSS:
        print(f"in int8 it loses {loss:.2%} of validation accuracy (limit {LOSS:.2%}), and will be released in fp32 only")
        return None
    answers = trained.sets["test"].logits.argmax(1) == int8.sets["test"].logits.argmax(1)
    int8.figures["same_answer"] = float(answers.float().mean())
    return int8


def as_script(network: Network) -> bytes:
    """Return a network as TorchScript: weights alone do not bring a quantised one back."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer)
    return buffer.getvalue()


def sample(manifest: Manifest, size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some training photos, the same ones every time, spread over all labels."""
    rows = sorted(manifest.split("train"), key=lambda row: row.sha256)[:count]
    return read_all([row.path for row in rows], size), torch.tensor([manifest.labels.index(row.label) for row in rows])


def statistics(seen: Seen, rows: list[Row]) -> dict[str, measures.Array]:
    """Return what the photos are like, each an array [N]."""
    parts = [photo_statistics(part) for part in seen.pixels.split(250)]
    result = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return {**result, "width": np.array([row.width for row in rows]), "height": np.array([row.height for row in rows])}


def reference(seen: Seen, manifest: Manifest, probabilities: measures.Array, unlike: nn.Module) -> dict[str, Any]:
    """Return what validation photos are like, for a server to notice when its own are not."""
    numbers = statistics(seen, manifest.split("val"))
    numbers["aspect"] = numbers["width"] / numbers["height"]
    numbers["confidence"] = probabilities.max(1)
    with torch.inference_mode():
        numbers["unlike"] = unlike(seen.summaries).numpy()
    described = {
        name: {"mean": float(value.mean()), "std": float(value.std()), "quantiles": np.quantile(value, QUANTILES).tolist()}
        for name, value in numbers.items()
    }
    answers = probabilities.argmax(1)
    share = {label: float((answers == index).mean()) for index, label in enumerate(manifest.labels)}
    return {**described, "quantile_levels": list(QUANTILES), "label_share": share}


def measure_folder(network: Network, folder: Path, labels: list[str], size: int, temperature: float) -> dict[str, Any]:
    """Return the figures of a labelled folder of photos that the manifest does not know."""
    found = find_photos(folder)
    if strange := sorted({item.label for item in found} - set(labels)):
        raise UserError(f"evaluate.photos: {folder} has labels that the model does not know: {', '.join(strange)}")
    truth = torch.tensor([labels.index(item.label) for item in found])
    seen = look(network, read_all([item.path for item in found], size), truth)
    return measures.everything(truth.numpy(), seen.probabilities(temperature), labels)


def scorecard(network: Network, manifest: Manifest, size: int, count: int) -> dict[str, Any]:
    """Return the accuracy on test photos after each corruption, and the mean of all."""
    rows = sorted(manifest.split("test"), key=lambda row: row.sha256)[:count]
    truth = torch.tensor([manifest.labels.index(row.label) for row in rows])
    result = {}
    for name in CORRUPTIONS:
        seen = look(network, read_all([row.path for row in rows], size, name), truth)
        result[name] = float((seen.logits.argmax(1) == truth).float().mean())
    return {"photos": len(rows), "accuracy": result, "mean": float(np.mean(list(result.values())))}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--reports", type=Path, default=REPORTS)
    parser.add_argument("--photos", help="another labelled folder or zip to measure, instead of evaluate.photos")
    parser.add_argument("--outliers", help="photos of other things, instead of evaluate.outliers")
    parser.add_argument(
        "--before", type=Path, help="metrics.json or petclf.pt of a model to compare with (default: the released one)"
    )
    args = parser.parse_args(argv)
    config = load_params(args.params).evaluate
    config = replace(config, photos=args.photos or config.photos, outliers=args.outliers or config.outliers)
    manifest = Manifest.read(args.manifest)
    before = read_known(args.before) if args.before else live_model(manifest.labels)
    figures = evaluate(manifest, args.weights, config, args.reports, args.weights.parent / CALIBRATION.name, before)
    write_atomically(args.reports / "metrics.json", json.dumps(figures, indent=2) + "\n")
    low, high = figures["test"]["interval"]
    print(f"test accuracy {figures['test']['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})\n{how_to_open(args.reports)}")


if __name__ == "__main__":
    run_cli(main)
