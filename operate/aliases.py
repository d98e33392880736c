"""MLflow's aliases follow what is live: `champion`, and `previous` for where a rollback leads."""

import os
import re
from collections.abc import Mapping
from typing import Any

from operate.client import UsageError
from serving.live import Live

VERSION = re.compile(r"models:/([^/@]+)/(\d+)")
TRACKING = "sqlite:///mlflow.db"


def exact(address: str) -> str:
    """Return which version an alias means now: models:/petclf@candidate is models:/petclf/7."""
    name, at, alias = address.removeprefix("models:/").partition("@")
    if not at or not address.startswith("models:/"):
        return address
    try:
        return f"models:/{name}/{client().get_model_version_by_alias(name, alias).version}"
    except Exception as error:  # MLflow raises whatever its store raises
        raise UsageError(f"cannot get {address} from MLflow: {first_line(error)}") from None


def move(live: Live, addresses: Mapping[str, str]) -> str:
    """Let the aliases mean what is live; returns what to tell the user. `addresses` has, by sha256, what came from MLflow."""
    wanted = {"champion": live.live, **({"previous": live.previous} if live.previous else {})}
    known = {alias: found for alias, release in wanted.items() if (found := VERSION.fullmatch(addresses.get(release.sha256, "")))}
    try:
        for alias, found in known.items():
            client().set_registered_model_alias(found[1], alias, found[2])
    except Exception as error:
        return f"note: MLflow's aliases could not be moved: {first_line(error)}; set {told(known)} by hand"
    return f"MLflow: {told(known)}" if known else ""


def told(known: Mapping[str, re.Match[str]]) -> str:
    return ", ".join(f"{alias} is {found[0]}" for alias, found in known.items())


def client() -> Any:
    import mlflow  # noqa: PLC0415  (takes seconds, and most versions come from a file)

    return mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", TRACKING))


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
