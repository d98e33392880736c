"""MLflow's aliases follow what is live, in a real registry; where MLflow cannot be told, the release goes on and says so."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from operate.aliases import exact, move
from operate.client import UsageError
from serving.live import Live, Release


def release(version: str, digest: str) -> Release:
    return Release(version, f"petclf-{version}.mar", digest * 64, "2026-11-26T12:00:00+00:00")


OLD, NEW, FOREIGN = release("2.0.0", "a"), release("2.1.0", "b"), release("1.0.0", "c")
ADDRESSES = {OLD.sha256: "models:/petclf/1", NEW.sha256: "models:/petclf/2"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with two versions, of which the second is the candidate."""
    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = MlflowClient(address)
    client.create_registered_model("petclf")
    for _ in range(2):
        client.create_model_version("petclf", source=(tmp_path / "model").as_uri())
    client.set_registered_model_alias("petclf", "candidate", "2")
    return client


def meant(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model("petclf").aliases.items()}


def test_an_alias_is_followed_to_the_version_that_it_means_now(registry: MlflowClient) -> None:
    assert exact("models:/petclf@candidate") == "models:/petclf/2"
    assert exact("models:/petclf/1") == "models:/petclf/1"
    assert meant(registry) == {"candidate": "2"}
    with pytest.raises(UsageError, match="cannot get models:/petclf@nobody from MLflow: "):
        exact("models:/petclf@nobody")


def test_champion_and_previous_follow_a_promotion_and_its_rollback(registry: MlflowClient) -> None:
    assert move(Live(NEW, OLD, "promote"), ADDRESSES) == "MLflow: champion is models:/petclf/2, previous is models:/petclf/1"
    assert meant(registry) == {"candidate": "2", "champion": "2", "previous": "1"}
    move(Live(OLD, NEW, "rollback"), ADDRESSES)
    assert meant(registry) == {"candidate": "2", "champion": "1", "previous": "2"}


def test_a_version_that_did_not_come_from_mlflow_moves_nothing(registry: MlflowClient) -> None:
    assert move(Live(FOREIGN, None), ADDRESSES) == ""
    assert meant(registry) == {"candidate": "2"}


def test_a_registry_that_is_away_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    said = move(Live(NEW, OLD, "promote"), ADDRESSES)
    assert said.startswith("note: MLflow's aliases could not be moved: ")
    assert said.endswith("; set champion is models:/petclf/2, previous is models:/petclf/1 by hand")
