"""A run in MLflow for a running server's figures, beside the trainings' runs."""

import contextlib
import os
from pathlib import Path
from typing import Any

from operate.client import UsageError, root_cause
from operate.labelled import Figures
from operate.shares import Share

STORE = "sqlite:///mlflow.db"
EXPERIMENT = "petclf"  # as training/tracking.py calls both; a test compares them
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is away is told at once,
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # and one that hangs soon after
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class TrackedScore:
    """One run; made before the server is asked, so that a store that is away is told first."""

    def __init__(self) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient  # noqa: PLC0415  (takes seconds, and only --mlflow needs it)
        except ModuleNotFoundError as missing:
            raise UsageError(f"{missing.name} is not installed here, and --mlflow needs it; `make setup`") from None
        self.uri = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        try:
            self.client: Any = MlflowClient(self.uri)
            known = self.client.get_experiment_by_name(EXPERIMENT)
            experiment = known.experiment_id if known else self.client.create_experiment(EXPERIMENT)
            self.id = str(self.client.create_run(experiment).info.run_id)
        except Exception as error:  # MLflow raises whatever its store raises
            raise self.failed(error) from None

    def log(self, facts: dict[str, Any], found: Figures, folder: Path) -> None:
        """Log the figures and the report, and end the run."""
        tags = {
            "mlflow.runName": f"live {' and '.join(found.versions) or 'without answers'}",
            "mlflow.source.name": "scripts.score_live",
            "mlflow.source.type": "LOCAL",
            "version": ", ".join(found.versions),
            "archive": ", ".join(found.archives),
        }
        try:
            for name, value in tags.items():
                self.client.set_tag(self.id, name, value)
            for name in ("source", "server", "model", "jobs"):
                self.client.log_param(self.id, name, facts[name])
            for name, number in metrics(found).items():
                self.client.log_metric(self.id, name, number)
            self.client.log_artifacts(self.id, str(folder), "live")
            self.client.set_terminated(self.id, "FINISHED")
        except Exception as error:  # see __init__
            raise self.failed(error) from None

    def give_up(self) -> None:
        """Mark the run as failed, if the store still takes that; why it fails is told by whoever calls."""
        with contextlib.suppress(Exception):
            self.client.set_terminated(self.id, "FAILED")

    def failed(self, error: Exception) -> UsageError:
        reason = root_cause(error).splitlines()[0]
        return UsageError(f"the tracking store {self.uri} failed: {reason}; start it, or unset MLFLOW_TRACKING_URI")


def metrics(found: Figures) -> dict[str, float]:
    """Return the figures by the names that runs are compared by; what could not be measured is left out."""
    times = vars(found.milliseconds) if found.milliseconds else {}
    known = {
        "live_photos": found.measured,
        "live_not_answered": found.errors,
        **with_interval("live_accuracy", found.accuracy),
        "live_balanced_accuracy": found.balanced_accuracy,
        "live_calibration_error": found.calibration_error,
        "live_sure_accuracy": found.sure.share,
        "live_unsure_share": found.unsure.share,
        "live_unlike_share": found.unlike.share,
        **{f"live_{name}_ms": value for name, value in times.items()},
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def with_interval(name: str, share: Share) -> dict[str, float | None]:
    low, high = share.interval or (None, None)
    return {name: share.share, f"{name}_low": low, f"{name}_high": high}
