"""A finished training's evaluation and model -> its MLflow run, and the registry's `candidate`."""

import argparse
import json
from pathlib import Path
from typing import Any

from training.errors import UserError, run_cli
from training.manifest import Manifest
from training.network import load_weights
from training.paths import MANIFEST, MODEL, REPORTS, WEIGHTS
from training.photos import read_bytes
from training.tracking import Run, json_metadata


def register(weights: Path, reports: Path, model: Path, manifest: Manifest) -> tuple[str, str]:
    """Log figures, pictures and model into the run that trained them; returns the run and the model's version."""
    _, saved = load_weights(weights)
    if not saved["mlflow_run"]:
        raise UserError(f"{weights} was trained without tracking; train again with train.tracking: true")
    for path, command in ((reports / "metrics.json", "make evaluate"), (model, "make export")):
        if not path.exists():
            raise UserError(f"no file at {path}; run `{command}`")
    if json_metadata(model)["provenance"]["mlflow_run"] != saved["mlflow_run"]:
        raise UserError(f"{model} was not exported from {weights}; run `make evaluate export`")
    figures = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    run = Run(saved["mlflow_run"], strict=True)
    run.log_metrics(headlines(figures))
    run.log_artifacts(reports, "evaluation")
    example = read_bytes(manifest.split("test")[0].path)
    version = run.register(model, example)
    run.finish()
    return run.id, version


def headlines(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that runs are compared by."""
    test, unlike = figures["test"], figures["unlike"]
    names = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss", "calibration_error")
    result = {f"test_{name}": float(test[name]) for name in names}
    return result | {name: float(value) for name, value in unlike.items() if name.endswith("refused")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--reports", type=Path, default=REPORTS)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    args = parser.parse_args(argv)
    run, version = register(args.weights, args.reports, args.model, Manifest.read(args.manifest))
    print(f"version {version} of petclf is now the candidate (run {run}); see it with `make mlflow`")


if __name__ == "__main__":
    run_cli(main)
