"""Commands of the documents that no other test runs: as they stand there, but for ports and the interpreter."""

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.documents import commands
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, running
from tests.e2e.prometheus import behind

pytestmark = pytest.mark.e2e

PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=90)
Reader = Callable[[str, int], bytes]


@pytest.fixture
def run(tmp_path: Path) -> Reader:
    """Run a command in a folder with a photo, against a port of ours instead of 8080; return what it prints."""
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")  # make_key is named by its path

    def in_the_folder(command: str, port: int = 8080) -> bytes:
        programs = {
            "python3": sys.executable,
            ".venv/bin/petclf": f"{sys.executable} -m scripts",
            "curl": "curl --silent --show-error",
        }
        program, _, words = command.partition(" ")
        ours = f"{programs[program]} {words}".replace(":8080/", f":{port}/")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            ["bash", "-c", ours], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=180
        )
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    return in_the_folder


def label_of(answer: bytes) -> str:
    return str(json.loads(answer)["label"])


def test_the_api_page_asks_in_two_ways_and_gets_one_answer(run: Reader, server: Serving) -> None:
    sent, form, *_ = commands("docs/api.md")

    first, second = (json.loads(run(command, server.port)) for command in (sent, form))

    assert first["probabilities"] == pytest.approx(
        second["probabilities"], abs=1e-4
    )  # in int8, a photo's answer depends on its batch
    assert first["label"] == second["label"] == label_of(server.predict(PHOTO).content)


def test_the_api_page_shows_where_the_model_looked_as_numbers_and_as_a_picture(
    run: Reader, server: Serving, tmp_path: Path
) -> None:
    *_, numbers, picture = commands("docs/api.md")

    explanation = json.loads(run(numbers, server.port))["explanation"]
    run(picture, server.port)

    assert set(explanation) == {"label", "map"}
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")


def test_the_operations_page_shows_recent_figures_without_prometheus(run: Reader, server: Serving) -> None:
    [command] = [one for one in commands("docs/operations.md") if "customized=true" in one]
    server.predict(PHOTO)

    [model] = json.loads(run(command.replace(":8081/", ":8080/"), server.management_port))

    assert model["customizedMetadata"]["recent"]["total"] >= 1


@pytest.mark.skipif(NGINX is None, reason=HOW_TO_GET_NGINX)
def test_the_gateway_page_asks_with_any_type_and_with_a_key(run: Reader, server: Serving, tmp_path: Path) -> None:
    photo, question, for_predictions, for_management, _, with_key, _ = commands("docs/gateway.md")
    keys = []
    (tmp_path / "question.json").write_text(json.dumps({"image": base64.b64encode(PHOTO).decode()}))
    for folder in ("deploy/gateway", "open", "closed"):
        (tmp_path / folder).mkdir(parents=True)
    expected = label_of(server.predict(PHOTO).content)

    def add_keys(secrets: Path) -> None:
        (tmp_path / "deploy" / "gateway" / "secrets").symlink_to(secrets)
        keys.extend(run(command, 0).decode().strip().partition(":")[::2] for command in (for_predictions, for_management))

    with running(tmp_path / "open", **behind(server)) as gateway:
        assert [label_of(run(command, gateway.port)) for command in (photo, question)] == [expected] * 2
    with running(tmp_path / "closed", add_keys, **behind(server)) as gateway:
        asked = run(with_key.replace("SECRET", keys[0][1]), gateway.port)
        refused = json.loads(run(photo, gateway.port))
        managed = requests.get(f"{gateway.management}/models", auth=keys[1], timeout=10)

    assert [name for name, _ in keys] == ["shelter-berlin", "operator"]
    assert (label_of(asked), refused["error"]["code"], managed.status_code) == (expected, "unauthorized", 200)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here; `make setup-bulk` installs it")
def test_the_bulk_page_scores_a_folder_and_a_zip(run: Reader, server: Serving, tmp_path: Path) -> None:
    folder, archive, *_ = [command for command in commands("docs/bulk.md") if ".venv/bin/petclf score_many" in command]
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(encoded(draw_photo("dog", seed, (300, 200))))
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    (tmp_path / "model_store").mkdir()
    shutil.copy(server.store / "petclf.mar", tmp_path / "model_store" / "petclf-2.0.0.mar")

    of_the_folder = rows(tmp_path, run, folder)
    shutil.rmtree(tmp_path / "build")
    of_the_zip = rows(tmp_path, run, archive)

    assert [Path(path).name for path, _ in of_the_folder] == [f"{seed}.jpg" for seed in range(6)]
    assert [label for _, label in of_the_zip] == [label for _, label in of_the_folder]


def rows(folder: Path, run: Reader, command: str) -> list[tuple[str, str]]:
    import pyarrow.parquet

    run(command, 0)
    found = pyarrow.parquet.read_table(folder / "build" / "answers" / "answers", columns=["path", "label"]).to_pylist()
    return sorted((row["path"], row["label"]) for row in found)
