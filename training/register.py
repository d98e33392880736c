"""A finished training's evaluation and model -> its MLflow run, and the registry's `candidate`."""

import argparse
import base64
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from handler.model_file import ModelFileError, read_model_file
from training.errors import UserError, run_cli
from training.figures import Figures, Share, read_figures
from training.manifest import Manifest
from training.network import load_weights
from training.paths import MANIFEST, MODEL, REPORTS, WEIGHTS
from training.photos import read_bytes
from training.tracked_photos import dataset
from training.tracking import EXPERIMENT, Run, reason, status_told

HERE = Path(__file__).parent
PURPOSE = (
    "Says which of the labels a photo shows, how sure it is, and how little the photo resembles the training photos. "
    "Takes a column `photo` of base64-encoded files. `candidate` is the version registered last. "
    "Set the alias `champion` on the one to serve; `make archive MODEL=models:/petclf@champion` packs it."
)


class Registration:
    """One training's evaluation and model on their way into its run."""

    tracked: Run | None = None

    def __init__(self, weights: Path, reports: Path, model: Path, manifest: Manifest) -> None:
        self.reports, self.model, self.manifest = reports, model, manifest
        _, self.saved = load_weights(weights)
        if not self.saved["mlflow_run"]:
            raise UserError(f"{weights} was trained without tracking; train again with train.tracking: true")
        for path, command in ((reports / "metrics.json", "make evaluate"), (model, "make export")):
            if not path.exists():
                raise UserError(f"no file at {path}; run `{command}`")
        self.facts = json_metadata(model)
        if self.facts["provenance"]["mlflow_run"] != self.saved["mlflow_run"]:
            raise UserError(f"{model} was not exported from {weights}; run `make evaluate export`")
        self.figures = read_figures(reports / "metrics.json")

    def register(self) -> tuple[str, str]:
        """Log figures, pictures and model into the run that trained them; returns the run and the model's version."""
        run = self.tracked = Run(self.saved["mlflow_run"], strict=True)
        run.open = True
        try:
            logged = log_model(run, self.model, self.facts["labels"], self.example())
            self.describe(run, str(logged.registered_model_version))
        except UserError:
            raise
        except Exception as error:  # MLflow raises whatever its store raises
            raise UserError(f"the tracking store {run.uri} did not take {self.model}: {reason(error)}") from None
        self.log_figures(run, logged.model_id)
        run.log_artifacts(self.reports, "evaluation")
        return run.id, str(logged.registered_model_version)

    def example(self) -> bytes:
        return read_bytes(self.manifest.split("test")[0].path)

    def log_figures(self, run: Run, model_id: str) -> None:
        """Log the headline figures: those of the test split with the data set that they are from."""
        belongs_to = {"model_id": model_id}
        run.log_metrics(of_other_photos(self.figures), **belongs_to)
        if self.manifest.digest == self.figures.data_digest:
            photos = dataset(self.manifest, "test")
            belongs_to |= {"dataset_name": photos.name, "dataset_digest": photos.digest}
        run.log_metrics(of_test(self.figures), **belongs_to)

    def describe(self, run: Run, version: str) -> None:
        """Say in the registry what the model is for and how good this version is, and make it the candidate."""
        text = description(self.figures, self.facts["provenance"]["git_commit"])
        tags = {
            "data_digest": self.figures.data_digest,
            "git_commit": self.facts["provenance"]["git_commit"],
            "network": self.saved["network"],
            "model_file_version": self.facts["version"],
            "test_accuracy": f"{self.figures.test.accuracy:.4f}",
        }
        run.client.update_registered_model(EXPERIMENT, PURPOSE)
        run.client.update_model_version(EXPERIMENT, version, text)
        for name, value in tags.items():
            run.client.set_model_version_tag(EXPERIMENT, version, name, value)
        run.client.set_registered_model_alias(EXPERIMENT, "candidate", version)
        run.client.set_tag(run.id, "mlflow.note.content", text)


def of_test(figures: Figures) -> dict[str, float]:
    """Return the figures of the test split that runs are compared by."""
    test = figures.test
    found = {
        "test_accuracy": test.accuracy,
        "test_balanced_accuracy": test.balanced_accuracy,
        "test_roc_auc": test.roc_auc,
        "test_log_loss": test.log_loss,
        "test_calibration_error": test.calibration_error,
        "pets_refused": figures.unlike.pets_refused,
        "sure_coverage": figures.sure.coverage if figures.sure else None,
        "sure_accuracy": figures.sure.accuracy if figures.sure else None,
        "scorecard_mean": figures.scorecard.mean if figures.scorecard else None,
        "int8_test_accuracy": figures.int8.test.accuracy if figures.int8 else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def of_other_photos(figures: Figures) -> dict[str, float]:
    """Return the figures of photos that the manifest does not know."""
    found = {
        "camera_accuracy": figures.camera_photos.accuracy if figures.camera_photos else None,
        "others_refused": figures.unlike.others_refused,
    }
    return {name: value for name, value in found.items() if value is not None}


def description(figures: Figures, commit: str) -> str:
    """Return the figures that a reader of the registry asks for first, as Markdown."""
    rows = {
        "test accuracy": share(figures.test),
        "test calibration error": f"{figures.test.calibration_error:.4f}",
        "test photos refused as unlike": f"{figures.unlike.pets_refused:.2%}",
    }
    if figures.unlike.others_refused is not None:
        rows["other things refused as unlike"] = f"{figures.unlike.others_refused:.2%} (n = {figures.unlike.others:,})"
    if figures.camera_photos:
        rows["camera photos, accuracy"] = share(figures.camera_photos)
    if figures.scorecard:
        rows["mean accuracy after corruptions"] = f"{figures.scorecard.mean:.2%} (n = {figures.scorecard.photos:,})"
    if figures.int8:
        rows["test accuracy in int8"] = share(figures.int8.test)
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"Labels: {', '.join(figures.labels)}. {figures.image_size} px, {figures.parameters:,} parameters.\n\n"
        f"| figure | value |\n|---|---|\n{table}\n\n"
        f"Data digest `{figures.data_digest}`, commit `{commit}`. "
        "The run's artifact `evaluation/report.html` has every figure and picture."
    )


def share(one: Share) -> str:
    low, high = one.interval
    return f"{one.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {one.photos:,})"


def log_model(run: Run, model: Path, labels: list[str], example: bytes) -> Any:
    """Log petclf.pt as a model that MLflow can run."""
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(run.uri)
    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints what it registers; errors are raised
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=run.id):
            return mlflow.pyfunc.log_model(
                name="petclf",
                python_model=str(HERE / "pyfunc_model.py"),
                artifacts={"model": str(model.resolve()), **beside(model)},
                code_paths=[str(HERE.parent / "handler")],
                pip_requirements=worker_requirements(HERE.parent / "handler" / "requirements.txt"),
                signature=signature(labels),
                input_example={"photo": [base64.b64encode(example).decode()]},
                registered_model_name=EXPERIMENT,
            )


def beside(model: Path) -> dict[str, str]:
    """Return the int8 form that was exported with the model: archives are built from what is registered."""
    int8 = model.resolve().with_name("petclf-int8.pt")
    return {"int8": str(int8)} if int8.exists() and int8.stat().st_size else {}


def signature(labels: list[str]) -> Any:
    """Return what goes in and comes out: base64 of a photo's bytes; the answer and all probabilities."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    numbers = [f"probability_{label}" for label in labels]
    outputs: list[Any] = [ColSpec("string", "label"), ColSpec("boolean", "unsure")]
    outputs += [ColSpec("double", name) for name in ("confidence", "unlike", *numbers)]
    return ModelSignature(Schema([ColSpec("string", "photo")]), Schema(outputs))


def worker_requirements(path: Path) -> list[str]:
    """Return the pinned packages that answering needs."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def json_metadata(model: Path) -> dict[str, Any]:
    """Return the facts that travel inside petclf.pt."""
    try:
        return read_model_file(model).metadata
    except (OSError, ModelFileError):
        raise UserError(f"cannot read {model} as TorchScript; run `make export`") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="trained weights, with what the training recorded beside them"
    )
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder with the report and its figures")
    parser.add_argument("--model", type=Path, default=MODEL, help="model to register")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of photos, as `make data` writes it")
    args = parser.parse_args(argv)
    registration = Registration(args.weights, args.reports, args.model, Manifest.read(args.manifest))
    with status_told(registration):
        run, version = registration.register()
    print(
        f"version {version} of petclf is now the candidate (run {run})\n"
        "what now: `make mlflow` shows the run, its report and the model's version; to serve it, set its alias `champion` "
        "there and run `make archive MODEL=models:/petclf@champion`"
    )


if __name__ == "__main__":
    run_cli(main)
