"""petclf.mar: the same bytes from the same inputs, and complete by itself."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.build_archive import build_archive
from tests.drawing import draw_photo, encoded

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "pretrained" / "petclf.pt"
INT8 = MODEL.with_name("petclf-int8.pt")

ANSWER_ONE = """
import json, os, sys
sys.path.insert(0, os.getcwd())  # what -I leaves out: the archive's own folder, and nothing else of ours
from handler.batch import Answerer
from handler.classifier import Classifier
from handler.lanes import Lanes
from handler.question import Request
from pathlib import Path
answerer = Answerer(Classifier(Path("petclf.pt"), "cpu", 1), [1], None, frozenset(), Lanes(Path(), 1))
data = Path(sys.argv[1]).read_bytes()
[[reply], _] = answerer.answer([Request("id", body=data)])
print(reply.body.decode())
assert not any("training" in name or "mlflow" in name for name in sys.modules)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "petclf.mar"
    build_archive(MODEL, path)
    return path


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "scripts.build_archive", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_same_inputs_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another folder" / "petclf.mar"
    copy = tmp_path / "copy.pt"
    shutil.copy(MODEL, copy)
    shutil.copy(INT8, tmp_path)
    os.utime(copy, (1, 1))
    digest = build_archive(copy, elsewhere)

    assert elsewhere.read_bytes() == archive.read_bytes()
    assert digest == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (elsewhere.parent / "petclf.mar.sha256").read_text() == f"{digest}  petclf.mar\n"


def test_it_holds_what_a_worker_needs_and_nothing_else(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    modules = {f"handler/{path.name}" for path in (ROOT / "handler").glob("*.py")} - {"handler/petclf_handler.py"}
    others = {
        "MAR-INF/MANIFEST.json",
        "petclf.pt",
        "petclf-int8.pt",
        "petclf_handler.py",
        "model-config.yaml",
        "page.html",
        "provenance.json",
    }
    assert names == modules | others
    assert manifest["model"] == {
        "modelName": "petclf",
        "modelVersion": metadata_of(archive)["version"],
        "handler": "petclf_handler.py",
        "serializedFile": "petclf.pt",
        "configFile": "model-config.yaml",
    }


def metadata_of(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as packed:
        provenance: dict[str, str] = json.loads(packed.read("provenance.json"))
    return provenance


def test_its_provenance_names_every_file_by_its_digest(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        provenance = json.loads(packed.read("provenance.json"))
        digests = {name: hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist()}
    del digests["MAR-INF/MANIFEST.json"], digests["provenance.json"]
    assert provenance["files"] == digests
    assert set(provenance) == {"name", "version", "labels", "provenance", "metrics", "files"}
    assert len(provenance["provenance"]["data_digest"]) == 64


def test_it_answers_by_itself(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "model")
    (tmp_path / "photo.jpg").write_bytes(encoded(draw_photo("cat", 4)))

    result = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", ANSWER_ONE, str(tmp_path / "photo.jpg")],
        cwd=tmp_path / "model", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)["probabilities"]) == {"cat", "dog"}


def test_the_command_tells_the_digest(archive: Path, tmp_path: Path) -> None:
    result = command("--output", str(tmp_path / "petclf.mar"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    size = archive.stat().st_size / 1e6
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}/petclf.mar: {size:.1f} MB, sha256 {digest}\n")


def test_a_model_can_come_from_mlflow(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.create_run(client.create_experiment("petclf", artifact_location=(tmp_path / "artifacts").as_uri())).info.run_id
    for path in (MODEL, INT8):
        client.log_artifact(run, str(path), "model")

    result = command("--model", f"runs:/{run}/model", "--output", str(tmp_path / "petclf.mar"))
    missing = command("--model", "models:/petclf@champion", "--output", str(tmp_path / "petclf.mar"))

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "petclf.mar").read_bytes() == archive.read_bytes()
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert missing.stderr.startswith("error: cannot get models:/petclf@champion from MLflow: ")


def test_the_int8_form_of_another_model_is_refused(tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path)
    (tmp_path / "petclf-int8.pt").write_bytes(b"of another model")

    result = command("--model", str(tmp_path / "petclf.pt"), "--output", str(tmp_path / "petclf.mar"))

    assert result.returncode == 2
    assert "petclf-int8.pt is not petclf.pt's int8 form; export both with `make export`, or remove it" in result.stderr
    assert not (tmp_path / "petclf.mar").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no model at"),
        (b"", "is no TorchScript model"),
        (b"text", "is no TorchScript model"),
        ("zip", "holds no extra/metadata.json"),
    ],
)
def test_a_wrong_model_is_refused_and_the_old_archive_kept(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    old = tmp_path / "petclf.mar"
    old.write_bytes(b"old")
    model = tmp_path / "model.pt"
    if content == "zip":
        with zipfile.ZipFile(model, "w") as packed:
            packed.writestr("anything", "")
    elif isinstance(content, bytes):
        model.write_bytes(content)

    result = command("--model", str(model), "--output", str(old))

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert reason in result.stderr
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_name_that_torchserve_does_not_take_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    with zipfile.ZipFile(model, "w") as packed:
        packed.writestr("petclf/extra/metadata.json", json.dumps({"name": "cats & dogs", "version": "1.0.0"}))
        packed.writestr("petclf/extra/golden.png", b"")

    result = command("--model", str(model), "--output", str(tmp_path / "petclf.mar"))

    assert result.returncode == 2
    assert result.stderr == "error: 'cats & dogs' is no name for a model; use letters, digits, dots, hyphens\n"
    assert not (tmp_path / "petclf.mar").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = command("--output", str(tmp_path / "file" / "petclf.mar"))
    assert (result.returncode, result.stderr) == (2, f"error: cannot write {tmp_path}/file/petclf.mar: File exists\n")
