"""MLflow: one run a training, with everything that would let someone repeat or judge it."""

import base64
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from handler.model_file import ModelFileError, read_model_file
from training.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is away is told at once,
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # and one that hangs soon after
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

STORE = "sqlite:///mlflow.db"
EXPERIMENT = "petclf"
PAUSE = 600.0  # seconds for which a store that failed is left alone: each attempt may stall the training by 40
EPOCHS_AT_ONCE = 100  # MLflow takes at most 1,000 metrics at once
EPOCH_METRICS = (
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "learning_rate", "size",
)  # fmt: skip

logger = logging.getLogger(__name__)


class Run:
    """One training in MLflow. A store that goes away later costs a warning, not the training, unless `strict`."""

    def __init__(self, run_id: str | None = None, strict: bool = False) -> None:
        for name in ("mlflow", "alembic", "sqlalchemy", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  (takes seconds, and only tracking needs it)

        self.uri = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        self.strict = strict
        self.warned = False
        self.paused_until = 0.0
        self.waiting: dict[int, list[Any]] = {}  # the metrics of each epoch that the store does not have yet
        try:
            self.client = MlflowClient(self.uri)
            self.id = run_id or self.create()
            self.client.get_run(self.id)
            self.stored = {point.step for point in self.client.get_metric_history(self.id, EPOCH_METRICS[0])}
        except Exception as error:  # MLflow raises whatever its store raises
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                raise UserError(
                    f"the tracking store {self.uri} has no run {run_id}; set MLFLOW_TRACKING_URI to the store that has it "
                    "(a training can also go on without: train.tracking: false)"
                ) from None
            raise UserError(
                f"cannot use the tracking store {self.uri}: {reason(error)}; "
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

    def log_epochs(self, history: Iterable[dict[str, float]]) -> None:
        """Log the figures of these epochs, each under its number, once: those that the store has are left out."""
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(time.time() * 1000)
        for epoch in history:
            if (number := int(epoch["epoch"])) not in self.stored:
                self.waiting[number] = [Metric(name, epoch[name], now, number) for name in EPOCH_METRICS]
        self.send_waiting()

    def send_waiting(self) -> None:
        """Send the epochs that the store lacks, also those from while it was away."""
        while self.waiting:
            numbers = sorted(self.waiting)[:EPOCHS_AT_ONCE]
            metrics = [metric for number in numbers for metric in self.waiting[number]]
            if not self.attempt(partial(self.client.log_batch, self.id, metrics=metrics)):
                return
            self.stored.update(numbers)
            for number in numbers:
                del self.waiting[number]

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.attempt(lambda: [self.client.log_metric(self.id, name, value) for name, value in metrics.items()])

    def log_artifacts(self, folder: Path, name: str) -> None:
        self.attempt(lambda: self.client.log_artifacts(self.id, str(folder), name))

    def finish(self) -> None:
        self.paused_until = 0.0  # the last chance
        self.send_waiting()
        self.attempt(lambda: self.client.set_terminated(self.id))

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do it and say whether it worked; the first failure is told, and none stops the training."""
        if time.monotonic() < self.paused_until:
            return False
        try:
            action()
        except Exception as error:  # see __init__
            if self.strict:
                raise UserError(f"the tracking store {self.uri} failed: {reason(error)}") from None
            if not self.warned:
                logger.warning("the tracking store %s failed (%s); the training goes on", self.uri, reason(error))
            self.warned = True
            self.paused_until = time.monotonic() + PAUSE
            return False
        return True

    def register(self, model: Path, example: bytes) -> str:
        """Log petclf.pt as a model that MLflow can run, and make it the candidate; returns its version."""
        try:
            version = self.log_model(model, example)
            self.client.set_registered_model_alias(EXPERIMENT, "candidate", version)
        except UserError:
            raise
        except Exception as error:  # see __init__
            raise UserError(f"the tracking store {self.uri} did not take {model}: {reason(error)}") from None
        return version

    def log_model(self, model: Path, example: bytes) -> str:
        import mlflow  # noqa: PLC0415

        mlflow.set_tracking_uri(self.uri)
        here = Path(__file__).parent
        with warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints what it registers; errors are raised
            warnings.simplefilter("ignore")
            with mlflow.start_run(run_id=self.id):
                logged = mlflow.pyfunc.log_model(
                    name="petclf",
                    python_model=str(here / "pyfunc_model.py"),
                    artifacts={"model": str(model.resolve()), **beside(model)},
                    code_paths=[str(here.parent / "handler")],
                    pip_requirements=worker_requirements(here.parent / "handler" / "requirements.txt"),
                    signature=signature(json_metadata(model)["labels"]),
                    input_example={"photo": [base64.b64encode(example).decode()]},
                    registered_model_name=EXPERIMENT,
                )
        return str(logged.registered_model_version)


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


def reason(error: Exception) -> str:
    """Return why, in few words: a connection's error is told without the libraries around it."""
    text = str(error).strip()
    if found := re.search(r"\[Errno -?\d+\] ([^\"')]+)|(Read timed out|timed out)", text):
        return (found[1] or found[2]).lower()
    return (text.splitlines() or [type(error).__name__])[0]
