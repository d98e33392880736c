"""build/weights.pt and build/calibration.pt -> reports/: how good the model is, on photos that nothing was chosen by."""

import argparse
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

from training import baselines, measures
from training.compare import Known, live_model, read_known
from training.config import PARAMS, EvaluateConfig, load_params
from training.corruptions import CORRUPTIONS, corrupted
from training.dataset import load_others, load_split
from training.errors import UserError, run_cli
from training.figures import Figures, Form, Int8, PhotoSet, Scorecard, Unlike, as_json
from training.files import write_atomically
from training.fitted import Fitted, digest, read_calibration
from training.manifest import Manifest, find_photos
from training.memory import keep_memory
from training.network import Network, count_parameters, load_weights
from training.paths import CALIBRATION, MANIFEST, REPORTS, WEIGHTS
from training.plots import Evidence
from training.report import how_to_open, write_report
from training.seen import Seen, look, read_all, statistics


@dataclass
class Model:
    """One form of the network, with what was fitted to it."""

    network: Network
    fitted: Fitted
    unlike: nn.Module

    def probabilities(self, seen: Seen) -> measures.Array:
        return seen.probabilities(self.fitted.temperature)

    def unlike_scores(self, seen: Seen) -> torch.Tensor:
        with torch.inference_mode():
            scores: torch.Tensor = self.unlike(seen.summaries)
        return scores


@dataclass
class Measured:
    """The photos' figures of one form, and its answers to validation and test photos."""

    val: Seen
    test: Seen
    others: measures.Array | None  # the unlike scores of other things
    figures: Form


def load_models(network: Network, weights: Path, calibration: Path) -> list[Model]:
    """Return the forms that are released: fp32, then int8 if it suits the network."""
    chosen = read_calibration(calibration, weights)
    forms = [(network, chosen.fp32), (chosen.quantised(), chosen.int8)]
    return [Model(form, fitted, fitted.unlike_score()) for form, fitted in forms if form and fitted]


def measure(models: list[Model], manifest: Manifest, size: int, cache: Path, config: EvaluateConfig) -> list[Measured]:
    """Measure every form; each photo is read once for all of them."""
    splits = {split: load_split(manifest, split, size, cache) for split in ("val", "test")}
    others = load_others(Path(config.outliers), size, "measure") if config.outliers else None
    camera = read_folder(Path(config.photos), manifest.labels, size) if config.photos else None
    cards = scorecards(models, manifest, size, config.scorecard_photos)
    return [measure_form(model, manifest.labels, splits, others, camera, card) for model, card in zip(models, cards, strict=True)]


Pixels = tuple[torch.Tensor, torch.Tensor]  # photos and their label numbers


def measure_form(
    model: Model,
    labels: list[str],
    splits: dict[str, Pixels],
    others: torch.Tensor | None,
    camera: Pixels | None,
    card: Scorecard | None,
) -> Measured:
    val, test = (look(model.network, *splits[split]) for split in ("val", "test"))
    strange = model.unlike_scores(look(model.network, others)) if others is not None else None
    figures = Form(
        val=photo_set(model, val, labels),
        test=photo_set(model, test, labels),
        temperature=model.fitted.temperature,
        unsure_below=model.fitted.unsure_below,
        promise=model.fitted.promise,
        sure=measures.sure_answers(test.truth.numpy(), model.probabilities(test), sure(model, test)),
        unlike=unlike(model, test, strange),
        camera_photos=photo_set(model, look(model.network, *camera), labels) if camera else None,
        scorecard=card,
    )
    return Measured(val, test, None if strange is None else strange.numpy(), figures)


def photo_set(model: Model, seen: Seen, labels: list[str]) -> PhotoSet:
    return measures.everything(seen.truth.numpy(), model.probabilities(seen), labels)


def sure(model: Model, seen: Seen) -> measures.Array:
    """Return which answers a server would not call `unsure`."""
    confidence = torch.softmax(seen.logits / model.fitted.temperature, 1).amax(1)
    like = model.unlike_scores(seen) <= model.fitted.unlike_above
    return ((confidence >= model.fitted.unsure_below) & like).numpy()


def unlike(model: Model, test: Seen, strange: torch.Tensor | None) -> Unlike:
    """Measure how the unlike score tells other things from the labels' photos."""
    threshold, pets = model.fitted.unlike_above, model.unlike_scores(test)
    figures = Unlike(
        threshold=threshold,
        fitted_on_other_things=model.fitted.fitted_on_other_things,
        pets_refused=float((pets > threshold).double().mean()),
    )
    if strange is None:
        return figures
    area = roc_auc_score(np.r_[np.zeros(len(pets)), np.ones(len(strange))], torch.cat([pets, strange]).numpy())
    refused = float((strange > threshold).double().mean())
    return replace(figures, others_refused=refused, others=len(strange), others_roc_auc=float(area))


def read_folder(folder: Path, labels: list[str], size: int) -> Pixels:
    """Return a labelled folder of photos that the manifest does not know."""
    found = find_photos(folder)
    if strange := sorted({item.label for item in found} - set(labels)):
        raise UserError(f"evaluate.photos: {folder} has labels that the model does not know: {', '.join(strange)}")
    return read_all([item.path for item in found], size), torch.tensor([labels.index(item.label) for item in found])


def scorecards(models: list[Model], manifest: Manifest, size: int, count: int) -> list[Scorecard | None]:
    """Return each form's accuracy on test photos after each corruption, and the mean of all."""
    if not count:
        return [None] * len(models)
    rows = sorted(manifest.split("test"), key=lambda row: row.sha256)[:count]
    paths, truth = [row.path for row in rows], torch.tensor([manifest.labels.index(row.label) for row in rows])
    accuracy: list[dict[str, float]] = [{} for _ in models]
    for name in CORRUPTIONS:
        pixels = read_all(paths, size, partial(corrupted, name=name), name)
        for model, found in zip(models, accuracy, strict=True):
            found[name] = float((look(model.network, pixels).logits.argmax(1) == truth).double().mean())
    return [Scorecard(photos=len(rows), accuracy=found, mean=float(np.mean(list(found.values())))) for found in accuracy]


def evaluate(
    manifest: Manifest, weights: Path, calibration: Path, config: EvaluateConfig, reports: Path, before: Known | None = None
) -> Figures:
    """Measure everything, write the figures and the report."""
    network, saved = load_weights(weights)
    manifest.require_weights(weights, saved)
    size, cache = saved["image_size"], weights.parent / "cache"
    models = load_models(network, weights, calibration)
    fp32, *rest = measure(models, manifest, size, cache, config)
    pixels, labels = load_split(manifest, "test", size, cache)
    truth, probabilities = labels.numpy(), models[0].probabilities(fp32.test)
    figures = Figures(
        **vars(fp32.figures),
        labels=manifest.labels,
        image_size=size,
        parameters=count_parameters(network),
        data_digest=manifest.digest,
        photos={split: len(manifest.split(split)) for split in ("train", "val", "test")},
        training_minutes=saved["seconds"] / 60,
        calibration=digest(calibration),
        calibration_error_before=measures.calibration_error(truth, fp32.test.probabilities(1.0)),
        coverage=measures.coverage(truth, probabilities),
        slices=measures.slices(truth, probabilities, statistics(pixels, manifest.split("test"))),
        baselines=simplest(manifest, cache) if config.baselines else None,
        int8=Int8(**vars(rest[0].figures), same_answer=same_answer(fp32.test, rest[0].test)) if rest else None,
    )
    write_atomically(reports / "answers.npz", answers(models, [fp32, *rest]))
    write_atomically(reports / "metrics.json", json.dumps(as_json(figures), indent=2) + "\n")
    evidence = Evidence(
        history=saved["history"],
        truth=truth,
        probabilities=probabilities,
        photos=pixels,
        unlike_pets=models[0].unlike_scores(fp32.test).numpy(),
        unlike_others=fp32.others,
    )
    write_report(figures, evidence, reports, before)
    return figures


def same_answer(one: Seen, other: Seen) -> float:
    return float((one.logits.argmax(1) == other.logits.argmax(1)).double().mean())


def simplest(manifest: Manifest, cache: Path) -> dict[str, float]:
    """Return how far the simplest things get."""
    pairs = (*load_split(manifest, "train", baselines.SIZE, cache), *load_split(manifest, "test", baselines.SIZE, cache))
    return {"mean colour": baselines.mean_colour(*pairs), "20,000 parameters": baselines.tiny(*pairs)}


def answers(models: list[Model], measured: list[Measured]) -> bytes:
    """Return every form's logits and unlike scores of validation and test photos, with the true labels, as .npz."""
    arrays: dict[str, Any] = {}
    for form, model, found in zip(("fp32", "int8"), models, measured, strict=False):
        for split, seen in (("val", found.val), ("test", found.test)):
            arrays[f"{split}_truth"] = seen.truth.numpy()
            arrays[f"{form}_{split}_logits"] = seen.logits.numpy()
            arrays[f"{form}_{split}_unlike"] = model.unlike_scores(seen).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of photos, as `make data` writes it")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="trained weights, with calibration.pt beside them")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder for the report, figures and plots")
    parser.add_argument("--photos", help="another labelled folder or zip to measure, instead of evaluate.photos")
    parser.add_argument("--outliers", help="photos of other things, instead of evaluate.outliers")
    parser.add_argument(
        "--before", type=Path, help="metrics.json or petclf.pt of a model to compare with; the released one if none is named"
    )
    args = parser.parse_args(argv)
    keep_memory()
    config = load_params(args.params).evaluate
    config = replace(config, photos=args.photos or config.photos, outliers=args.outliers or config.outliers)
    calibration = args.weights.parent / CALIBRATION.name
    manifest = Manifest.read(args.manifest)
    before = read_known(args.before) if args.before else live_model(manifest.labels)
    figures = evaluate(manifest, args.weights, calibration, config, args.reports, before)
    low, high = figures.test.interval
    print(f"test accuracy {figures.test.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})\n{how_to_open(args.reports)}")


if __name__ == "__main__":
    run_cli(main)
