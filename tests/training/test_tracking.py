"""MLflow has the whole run, and a model that answers."""

import base64
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mlflow.tracking import MlflowClient

from handler.photo_input import decode_photo
from tests.drawing import draw_photo, encoded
from tests.training.conftest import child_environment, run_module, write_params
from training.config import load_params
from training.errors import UserError
from training.manifest import Manifest
from training.network import load_weights
from training.tracked_photos import source_of
from training.tracking import Run, run_name, status_told


@pytest.fixture(scope="module")
def registered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registered") / "project"
    shutil.copytree(trained, folder)
    result = run_module("training.register", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("version 1 of petclf is now the candidate")
    return folder


@pytest.fixture
def run(registered: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of the registered training."""
    monkeypatch.chdir(registered)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Run(load_weights(Path("build/weights.pt"))[1]["mlflow_run"])


@pytest.fixture
def new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return Run(name="new")


def test_the_run_holds_parameters_every_epoch_and_where_it_came_from(run: Run) -> None:
    _, saved = load_weights(Path("build/weights.pt"))

    data = run.client.get_run(run.id).data

    assert {name: data.params[name] for name in saved["config"]} == {name: str(value) for name, value in saved["config"].items()}
    assert data.tags["data_digest"] == saved["data_digest"]
    assert (data.tags["mlflow.source.name"], data.tags["mlflow.source.git.commit"]) == ("training.train", saved["git_commit"])
    losses = run.client.get_metric_history(run.id, "val_loss")
    assert [(point.step, point.value) for point in losses] == [(epoch["epoch"], epoch["val_loss"]) for epoch in saved["history"]]
    names = {Path(item.path).name for item in run.client.list_artifacts(run.id, "evaluation")}
    assert names == {path.name for path in Path("reports").iterdir()}


def test_the_runs_name_tells_the_recipe(run: Run) -> None:
    info = run.client.get_run(run.id).info
    config = load_params(Path("params.yaml")).train

    photos = len(Manifest.read(Path("data/manifest.csv")).split("train"))
    assert info.run_name == f"efficientnet_lite0 pretrained 64px 10 epochs {photos} photos"
    assert run_name(
        replace(config, network="petnet", pretrained=False, frozen=0, remember=0.0, image_size=160, minutes=45.0), 18_013
    ) == ("petnet from scratch 160px 45min 18,013 photos")


def test_the_run_names_its_photos_and_counts_them(run: Run) -> None:
    manifest = Manifest.read(Path("data/manifest.csv"))
    logged = {
        one.tags[0].value: (one.dataset.name, one.dataset.digest, json.loads(one.dataset.source), json.loads(one.dataset.profile))
        for one in run.client.get_run(run.id).inputs.dataset_inputs
    }

    def expected(split: str) -> tuple[object, ...]:
        labels = [row.label for row in manifest.split(split)]
        counts = {"num_rows": len(labels), "labels": {label: labels.count(label) for label in ("cat", "dog")}}
        return f"photos {split}", manifest.digest[:36], {"uri": "photos"}, counts

    assert logged == {"training": expected("train"), "validation": expected("val"), "test": expected("test")}


@pytest.mark.parametrize(
    ("paths", "source"),
    [
        (["photos/cat/1.jpg", "photos/dog/1.jpg"], "photos"),
        (["../pets.zip/PetImages/cat/1.jpg", "../pets.zip/PetImages/cat/2.jpg"], "../pets.zip"),
    ],
)
def test_the_source_of_photos_is_their_folder_or_zip(trained: Path, paths: list[str], source: str) -> None:
    row = Manifest.read(trained / "data" / "manifest.csv").rows[0]

    assert source_of([replace(row, path=path) for path in paths]) == source


def test_test_figures_belong_to_the_test_photos_and_to_the_model(run: Run) -> None:
    figures = json.loads(Path("reports/metrics.json").read_text())
    version = run.client.get_model_version_by_alias("petclf", "candidate")
    metrics = {metric.key: metric for metric in run.client.get_logged_model(version.source.removeprefix("models:/")).metrics}

    accuracy = metrics["test_accuracy"]
    assert (accuracy.value, accuracy.dataset_name, accuracy.dataset_digest) == (
        figures["test"]["accuracy"], "photos test", figures["data_digest"][:36],
    )  # fmt: skip
    assert run.client.get_run(run.id).data.metrics["scorecard_mean"] == figures["scorecard"]["mean"]


def test_the_registry_says_what_the_version_is(run: Run) -> None:
    _, saved = load_weights(Path("build/weights.pt"))
    figures = json.loads(Path("reports/metrics.json").read_text())

    version = run.client.get_model_version_by_alias("petclf", "candidate")

    assert (str(version.version), version.run_id) == ("1", run.id)
    assert version.tags == {
        "data_digest": saved["data_digest"], "git_commit": saved["git_commit"], "network": "efficientnet_lite0",
        "model_file_version": load_params(Path("params.yaml")).export.version,
        "test_accuracy": f"{figures['test']['accuracy']:.4f}",
    }  # fmt: skip
    low, high = figures["test"]["interval"]
    row = f"| test accuracy | {figures['test']['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {figures['test']['photos']}) |"
    assert row in version.description
    assert f"Data digest `{saved['data_digest']}`, commit `{saved['git_commit']}`." in version.description
    assert run.client.get_run(run.id).data.tags["mlflow.note.content"] == version.description
    assert "`champion`" in run.client.get_registered_model("petclf").description


def test_a_training_that_ended_well_is_finished_also_when_repeated(run: Run) -> None:
    before = run.client.get_run(run.id).info

    result = run_module("training.train", cwd=Path.cwd())

    after = run.client.get_run(run.id).info
    assert result.returncode == 0, result.stderr
    assert (before.status, after.status) == ("FINISHED", "FINISHED")
    assert after.end_time == before.end_time


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_is_killed_and_continued_is_finished(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("photos", "data"):
        shutil.copytree(trained / name, tmp_path / name)
    write_params(tmp_path, tracking=True, epochs=25)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = child_environment(MLFLOW_TRACKING_URI=store, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.2")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "training.train"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        next(line for line in process.stdout if line.startswith("epoch 2 "))
        run = sole_run(monkeypatch, store)
        assert run.client.get_run(run.id).info.status == "RUNNING"
        process.send_signal(number)
        process.communicate()

    stopped = run.client.get_run(run.id)
    again = run_module("training.train", cwd=tmp_path, MLFLOW_TRACKING_URI=store)

    assert (process.returncode, stopped.info.status) == (130 if number == signal.SIGINT else 143, "KILLED")
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(stopped.data.metrics)
    assert again.returncode == 0, again.stderr
    assert run.client.get_run(run.id).info.status == "FINISHED"
    assert [point.step for point in run.client.get_metric_history(run.id, "val_loss")] == list(range(1, 26))


def sole_run(monkeypatch: pytest.MonkeyPatch, store: str) -> Run:
    """Return the only run that the store has."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("petclf").experiment_id])
    return Run(found.info.run_id)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "FAILED"), (UserError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_the_status_tells_how_the_work_ended(new_run: Run, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), status_told(SimpleNamespace(tracked=new_run)):
        raise error

    assert new_run.client.get_run(new_run.id).info.status == status


def test_epochs_that_the_store_missed_are_sent_at_the_end(new_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "learning_rate", "size")
    epochs = [{"epoch": number, **dict.fromkeys(names, float(number))} for number in (1, 2)]
    with monkeypatch.context() as away:
        away.setattr(new_run.client, "log_batch", lambda *_, **__: 1 / 0)
        new_run.log_epochs(epochs[:1])
    new_run.log_epochs(epochs[1:])

    new_run.end("FINISHED")

    assert [point.value for point in new_run.client.get_metric_history(new_run.id, "val_loss")] == [1.0, 2.0]


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
