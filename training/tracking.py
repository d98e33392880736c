"""MLflow: one run a training, with everything that would let someone repeat or judge it."""

import base64
import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

from training.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is away is told at once
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

STORE = "sqlite:///mlflow.db"
EXPERIMENT = "petclf"
EPOCH_METRICS = (
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "learning_rate", "size",
)  # fmt: skip

logger = logging.getLogger(__name__)


class Run:
    """One training in MLflow; a server that goes away later costs a warning, not the training."""

    def __init__(self, run_id: str | None = None) -> None:
        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  (takes seconds, and only tracking needs it)

        self.uri = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        self.warned = False
        try:
            self.client = MlflowClient(self.uri)
            self.id = run_id or self.create()
            self.client.get_run(self.id)
        except Exception as error:  # MLflow raises whatever its store raises
            raise UserError(
                f"cannot use the tracking store {self.uri}: {first_line(error)}; "
                "start it, or unset MLFLOW_TRACKING_URI to track in ./mlflow.db"
            ) from None

    def create(self) -> str:
        """Begin a run and return its id."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT)
        return str(self.client.create_run(number).info.run_id)

    def log_params(self, params: dict[str, Any]) -> None:
        self.attempt(lambda: [self.client.log_param(self.id, name, value) for name, value in params.items()])

    def set_tags(self, tags: dict[str, str]) -> None:
        self.attempt(lambda: [self.client.set_tag(self.id, name, value) for name, value in tags.items()])

    def log_epochs(self, history: list[dict[str, float]]) -> None:
        """Log the figures of these epochs, each under its number."""
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(time.time() * 1000)
        metrics = [Metric(name, epoch[name], now, int(epoch["epoch"])) for epoch in history for name in EPOCH_METRICS]
        for start in range(0, len(metrics), 500):  # MLflow takes at most 1,000 at once
            part = metrics[start : start + 500]
            self.attempt(lambda part=part: self.client.log_batch(self.id, metrics=part))

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.attempt(lambda: [self.client.log_metric(self.id, name, value) for name, value in metrics.items()])

    def log_artifacts(self, folder: Path, name: str) -> None:
        self.attempt(lambda: self.client.log_artifacts(self.id, str(folder), name))

    def finish(self) -> None:
        self.attempt(lambda: self.client.set_terminated(self.id))

    def attempt(self, action: Any) -> None:
        """Do it; the first failure is told, and none stops the training."""
        try:
            action()
        except Exception as error:  # see __init__
            if not self.warned:
                logger.warning("tracking stopped working (%s); the training goes on without it", first_line(error))
            self.warned = True

    def register(self, model: Path, example: bytes) -> str:
        """Log petclf.pt as a model that MLflow can run, and make it the candidate; returns its version."""
        import mlflow  # noqa: PLC0415

        mlflow.set_tracking_uri(self.uri)
        here = Path(__file__).parent
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mlflow.start_run(run_id=self.id):
                logged = mlflow.pyfunc.log_model(
                    name="petclf",
                    python_model=str(here / "pyfunc_model.py"),
                    artifacts={"model": str(model.resolve())},
                    code_paths=[str(here.parent / "handler")],
                    pip_requirements=worker_requirements(here.parent / "handler" / "requirements.txt"),
                    signature=signature(json_metadata(model)["labels"]),
                    input_example={"photo": [base64.b64encode(example).decode()]},
                    registered_model_name=EXPERIMENT,
                )
        version = str(logged.registered_model_version)
        self.client.set_registered_model_alias(EXPERIMENT, "candidate", version)
        return version


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
    import torch  # noqa: PLC0415

    extra = {"metadata.json": ""}
    torch.jit.load(str(model), _extra_files=extra)
    content: dict[str, Any] = json.loads(extra["metadata.json"])
    return content


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
