"""From a folder of photos to a served answer, by the commands of docs/your-own-photos.md."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from mlflow import MlflowClient

from tests.conftest import draw_folder
from tests.documents import commands
from tests.drawing import draw_photo
from tests.e2e.conftest import ROOT, free_port, wait_until
from tests.training.conftest import write_params

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv*", "data", "build", "reports", "mlruns", "mlartifacts", "*.db", "*.mar", "*.sha256", "__pycache__", ".*_cache"
)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A fresh clone with photos of two labels, and settings that train small networks in seconds; tracked by MLflow if asked for."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    draw_folder(folder / "photos", ("cat", "wind mill"), 50)
    write_params(folder, tracking=getattr(request, "param", False))
    draw_photo("cat", 999).save(folder / "photo.jpg")
    return folder


OWN = commands("docs/your-own-photos.md", "The commands")


def made(command: str) -> list[str]:
    """Return the words of a make command, with this environment instead of one that make would set up."""
    return ["make", "-o", f"{sys.prefix}/.ready", *shlex.split(command)[1:], f"VENV={sys.prefix}"]


@pytest.fixture
def served(project: Path) -> Iterator[dict[str, int]]:
    """Run every command but the last, as documented; yields the ports on which `make serve` answers."""
    *steps, serve, _ = OWN
    for step in steps:
        result = subprocess.run(made(step), cwd=project, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{step}: {result.stdout}{result.stderr}"
    ports = {name: free_port() for name in ("port", "management-port", "metrics-port", "ready-port")}
    options = " ".join(f"--{name} {port}" for name, port in ports.items())
    log = project / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*made(serve), f"SERVE=--workers 1 --ready-seconds 240 {options}"],
            cwd=project, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        wait_until(lambda: '"message": "ready in' in log.read_text() or process.poll() is not None, 300)
        assert process.poll() is None, log.read_text()
        yield ports
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("project", [True], indirect=True, ids=["tracked"])
def test_the_documented_commands_lead_from_a_folder_to_an_answer_and_into_the_registry(
    project: Path, served: dict[str, int]
) -> None:
    *_, ask = OWN

    answer = subprocess.run(
        ask.replace(":8080/", f":{served['port']}/").split(), cwd=project, capture_output=True, text=True, check=True
    ).stdout

    assert set(json.loads(answer)["probabilities"]) == {"cat", "wind mill"}
    assert json.loads(answer)["model"]["name"] == "petclf"
    [register] = [command for command in commands("README.md") if "register" in command]
    result = subprocess.run(made(register), cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert MlflowClient(f"sqlite:///{project}/mlflow.db").get_model_version_by_alias("petclf", "candidate").source


def test_new_photos_become_the_live_version_by_one_command_that_may_be_killed(project: Path, served: dict[str, int]) -> None:
    draw_folder(project / "new-photos", ("cat", "wind mill"), 20)
    for seed, path in enumerate(sorted((project / "new-photos").rglob("*.jpg"))):
        draw_photo(path.parent.name, 2000 + seed).save(path)
    rules = yaml.safe_load((ROOT / "operate" / "gate.yaml").read_text())
    rules["verify"] |= {"photos_at_least": 10, "photos_of_each_label_at_least": 5, "calibration_error_at_most": 1, "unsure_rise_at_most": 1,
                        "unlike_rise_at_most": 1, "latency_ratio_at_most": 20}  # fmt: skip
    (project / "gate.yaml").write_text(yaml.safe_dump(rules))
    servers = f"--server http://127.0.0.1:{served['management-port']},http://127.0.0.1:{served['port']}"
    options = f"--gate gate.yaml --watch 3 {servers}"
    dry, command = (
        [f"RETRAIN={options} {word.partition('=')[2]}" if word.startswith("RETRAIN=") else word for word in made(line)]
        for line in commands("docs/operations.md", "Retraining")
    )
    command = [*command, f"RETRAIN={options}"]

    shown = subprocess.run(dry, cwd=project, capture_output=True, text=True, check=True)
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, start_new_session=True) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.startswith("--- fit"):
                os.killpg(killed.pid, signal.SIGKILL)
                break
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    assert "is live; 2.1.0 would be trained from it, in build/retrain" in shown.stdout
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = [line.split("python")[0].strip("- ") for line in ended.stdout.splitlines() if line.startswith("--- ")]
    assert steps == ["fit", "evaluate", "export", "archive", "register", "hold out", "verify", "promote"]
    asked = requests.post(
        f"http://127.0.0.1:{served['port']}/predictions/petclf", (project / "photo.jpg").read_bytes(), timeout=30
    )
    assert asked.headers["x-petclf-version"] == "2.1.0"
    with zipfile.ZipFile(project / "model_store" / "petclf-2.1.0.mar") as archive:
        assert json.loads(archive.read("provenance.json"))["provenance"]["training"]["start_from"] == "build/retrain/live.pt"
