"""MLflow: one run a training, with everything that would let someone repeat or judge it."""

import getpass
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from training.config import TrainConfig
from training.errors import UserError
from training.manifest import Manifest
from training.tracked_photos import dataset_inputs

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
    "train_loss", "train_loss_plain", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "learning_rate", "size",
)  # fmt: skip

DESCRIPTION = (
    "One run a training: its settings, its photos (as three data sets), every epoch, and the machine's load. "
    "`make register` adds the evaluation with its report, and the model."
)

logger = logging.getLogger(__name__)


class Run:
    """One training in MLflow. A store that goes away later costs a warning, not the training, unless `strict`."""

    def __init__(self, run_id: str | None = None, strict: bool = False, name: str | None = None) -> None:
        for library in ("mlflow", "alembic", "sqlalchemy", "urllib3"):
            logging.getLogger(library).setLevel(logging.ERROR)
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # a store that is away is told by us, once
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  (takes seconds, and only tracking needs it)

        self.uri = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        self.strict = strict
        self.warned = False
        self.paused_until = 0.0
        self.waiting: dict[int, list[Any]] = {}  # the metrics of each epoch that the store does not have yet
        self.monitor: Any = None
        self.open = run_id is None  # whether it must be told how the work ended
        try:
            self.client = MlflowClient(self.uri)
            self.id = run_id or self.create(name)
            self.end_time = self.client.get_run(self.id).info.end_time  # when the training ended: registering keeps it
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

    def create(self, name: str | None) -> str:
        """Begin a run and return its id."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT)
        if not experiment:
            self.client.set_experiment_tag(number, "mlflow.note.content", DESCRIPTION)
        return str(self.client.create_run(number, run_name=name).info.run_id)

    def start(self) -> None:
        """Show the run as running, also one that ended before, and record the machine's load from now on."""
        self.open, self.end_time = True, None
        self.attempt(lambda: self.client.update_run(self.id, status="RUNNING"))
        self.attempt(self.start_monitor)

    def start_monitor(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415

        self.monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=self.uri)
        self.monitor.start()

    def log_photos(self, manifest: Manifest) -> None:
        """Log what is trained, validated and tested on."""
        self.attempt(lambda: self.client.log_inputs(self.id, dataset_inputs(manifest)))

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
                self.waiting[number] = [Metric(name, epoch[name], now, number) for name in EPOCH_METRICS if name in epoch]
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

    def log_metrics(self, metrics: dict[str, float], **belongs_to: Any) -> None:
        """Log figures, with the model and the data set that they belong to (model_id, dataset_name, dataset_digest)."""
        self.attempt(lambda: [self.client.log_metric(self.id, name, value, **belongs_to) for name, value in metrics.items()])

    def log_artifacts(self, folder: Path, name: str) -> None:
        self.attempt(lambda: self.client.log_artifacts(self.id, str(folder), name))

    def end(self, status: str) -> None:
        """Send what is left, and say how it ended: FINISHED, FAILED or KILLED."""
        if self.monitor and not self.warned:  # a store that is away would keep the monitor waiting
            self.monitor.finish()
        self.paused_until = 0.0  # the last chance
        self.send_waiting()
        self.attempt(lambda: self.client.set_terminated(self.id, status, self.end_time))

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


class Tracked(Protocol):
    """Work that opens a run when it gets so far."""

    tracked: Run | None


@contextmanager
def status_told(work: Tracked) -> Iterator[None]:
    """Tell the work's run how the work ended. SIGTERM, which ends a container or a job, counts as being killed."""
    status = "FINISHED"
    try:
        with terminable():
            yield
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except BaseException:
        status = "FAILED"
        raise
    finally:
        if work.tracked and work.tracked.open:
            work.tracked.end(status)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the work by an exception, so that what must be told is told."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_name(config: TrainConfig, photos: int) -> str:
    """Return the recipe in a few words, as the list of runs shows it."""
    start = "pretrained" if config.pretrained else "from scratch"
    length = f"{config.minutes:g}min" if config.minutes else f"{config.epochs} epochs" if config.epochs else "head only"
    return f"{config.network} {start} {config.image_size}px {length} {photos:,} photos"


def origin(commit: str) -> dict[str, str]:
    """Return the tags by which MLflow's pages show who ran what."""
    return {
        "mlflow.user": user(),
        "mlflow.source.name": "training.train",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
    }


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers that have no name
        return f"user {os.getuid()}"


def reason(error: Exception) -> str:
    """Return why, in few words: a connection's error is told without the libraries around it."""
    text = str(error).strip()
    if found := re.search(r"\[Errno -?\d+\] ([^\"')]+)|(Read timed out|timed out)", text):
        return (found[1] or found[2]).lower()
    return (text.splitlines() or [type(error).__name__])[0]
