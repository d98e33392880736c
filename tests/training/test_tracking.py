"""MLflow has the whole run, and a model that answers."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from handler.photo_input import decode_photo
from tests.drawing import draw_photo, encoded
from tests.training.conftest import child_environment, run_module
from training.errors import UserError
from training.network import load_weights
from training.tracking import Run


@pytest.fixture(scope="module")
def registered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registered") / "project"
    shutil.copytree(trained, folder)
    result = run_module("training.register", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("version 1 of petclf is now the candidate")
    return folder


def test_the_run_holds_parameters_every_epoch_and_where_it_came_from(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registered)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, saved = load_weights(Path("build/weights.pt"))

    run = Run(saved["mlflow_run"])

    data = run.client.get_run(run.id).data
    assert {name: data.params[name] for name in saved["config"]} == {name: str(value) for name, value in saved["config"].items()}
    assert data.tags["data_digest"] == saved["data_digest"]
    losses = run.client.get_metric_history(run.id, "val_loss")
    assert [(point.step, point.value) for point in losses] == [(epoch["epoch"], epoch["val_loss"]) for epoch in saved["history"]]
    assert data.metrics["test_accuracy"] == json.loads(Path("reports/metrics.json").read_text())["test"]["accuracy"]
    names = {Path(item.path).name for item in run.client.list_artifacts(run.id, "evaluation")}
    assert {"metrics.json", "report.md", "confusion.png", "reliability.png", "mistakes.png"} <= names
    assert str(run.client.get_model_version_by_alias("petclf", "candidate").version) == "1"


def test_mlflow_models_predict_answers_on_a_photo(registered: Path) -> None:
    photo = encoded(draw_photo("cat", 7))
    question = registered / "photo.json"
    question.write_text(json.dumps({"dataframe_records": [{"photo": base64.b64encode(photo).decode()}]}))
    command = ["models", "predict", "-m", "models:/petclf@candidate", "-i", str(question), "-t", "json", "--env-manager", "local"]
    environment = child_environment(MLFLOW_TRACKING_URI="sqlite:///mlflow.db", PYTHONPATH="", PYTHONWARNINGS="ignore")
    result = subprocess.run(
        [sys.executable, "-m", "mlflow", *command], cwd=registered, env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout[result.stdout.index("{") :])["predictions"][0]
    model = torch.jit.load(str(registered / "build" / "petclf.pt"))
    probabilities, unlike = model(decode_photo(photo, 64)[None])
    assert answer["probability_cat"] == pytest.approx(probabilities[0, 0].item(), abs=1e-5)
    assert answer["unlike"] == pytest.approx(unlike.item(), abs=1e-5)
    assert answer["label"] == ("cat", "dog")[int(probabilities.argmax())]


def test_a_store_that_cannot_be_used_stops_the_training_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    with pytest.raises(UserError, match=r"cannot use the tracking store http://127\.0\.0\.1:9"):
        Run()


def test_a_store_that_goes_away_later_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = Run()
    run.id = "gone"

    for _ in range(3):
        run.log_metrics({"test_accuracy": 1.0})

    assert [record.levelname for record in caplog.records if record.name == "training.tracking"] == ["WARNING"]


def test_registering_untracked_weights_says_what_to_do(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    saved = torch.load(folder / "build" / "weights.pt", weights_only=True)
    torch.save({**saved, "mlflow_run": None}, folder / "build" / "weights.pt")

    result = run_module("training.register", cwd=folder)

    assert result.returncode == 2
    assert result.stderr.endswith("was trained without tracking; train again with train.tracking: true\n")
