"""How right a real server is: asked at once, and found from its prediction log when the labels come later."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.documents import commands
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving, free_port, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawings of each label, of which the model knows some and takes some for the other."""
    folder = tmp_path_factory.mktemp("labelled")
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for number in range(12):
            (folder / label / f"{number:02d}.jpg").write_bytes(encoded(draw_photo(label, number, (320, 240)), quality=90))
    return folder


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def ask(server: Serving, photos: Path) -> dict[str, tuple[str, str]]:
    """Ask about every photo under an id of its own; returns the true label and the answer of each id."""
    found = {}
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        request_id = f"late-{number}"
        answer = server.predict(path.read_bytes(), X_Request_Id=request_id)
        assert answer.status_code == 200, answer.text
        assert answer.json()["request_id"] == request_id
        found[request_id] = path.parent.name, answer.json()["label"]
    return found


def logged(server: Serving) -> set[str]:
    lines = (server.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["request_id"] for line in lines}


@contextmanager
def late_metrics(server: Serving, labels: Path) -> Iterator[str]:
    """Run the command with --listen; yields the address of its metrics."""
    address = f"127.0.0.1:{free_port()}"
    log = str(server.folder / "predictions.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.late_labels", log, "--labels", str(labels), "--listen", address, "--every", "0.1"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"metrics on http://{address}/metrics\n"
        yield f"http://{address}/metrics"
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.communicate()


def samples(address: str, version: str) -> dict[str, float]:
    """Return the metrics of a version."""
    families = text_string_to_metric_families(requests.get(address, timeout=10).text)
    return {one.name: one.value for family in families for one in family.samples if one.labels.get("version") == version}


def score(server: Serving, photos: Path, folder: Path) -> dict[str, Any]:
    """Return what score_live finds; one photo at a time, so that each is answered as above."""
    result = run("scripts.score_live", str(photos), "--server", server.url, "--jobs", "1", "--json", "--report", str(folder))
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_live_accuracy_is_that_of_the_labelled_folder(server: Serving, photos: Path, tmp_path: Path) -> None:
    """The labels come later, in pieces, in any order and twice; one contradicts itself, and one is of nobody's request."""
    answers = ask(server, photos)
    wait_until(lambda: answers.keys() <= logged(server))
    right = sum(truth == answer for truth, answer in answers.values())
    assert 0 < right < len(answers) == 24  # both kinds of answers are there

    labels = [f"{request_id},{truth}" for request_id, (truth, _) in answers.items()]
    lines = [*labels, *labels, "nobody,cat", *random.Random(1).choices(labels, k=10)]
    random.Random(2).shuffle(lines)
    table = tmp_path / "labels.csv"
    table.write_text("request_id,label\n")
    version = server.describe()["modelVersion"]
    with late_metrics(server, table) as address:
        assert samples(address, version)["petclf_live_labelled"] == 0
        assert "petclf_live_accuracy" not in samples(address, version)
        for start in range(0, len(lines), 20):
            with table.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines[start : start + 20]))
        wait_until(lambda: samples(address, version)["petclf_live_labelled"] == 24)
        shown = samples(address, version)

        with table.open("a") as file:
            file.write("late-0,cat\nlate-0,dog\n")
        wait_until(lambda: samples(address, version)["petclf_live_labelled"] == 23)

    found = score(server, photos, tmp_path / "report")
    low, high = found["accuracy"]["interval"]
    assert (shown["petclf_live_accuracy"], shown["petclf_live_right"]) == (right / 24, right)
    assert (found["accuracy"]["share"], found["accuracy"]["count"]) == (right / 24, right)
    assert (shown["petclf_live_accuracy_low"], shown["petclf_live_accuracy_high"]) == (low, high)


def test_the_answers_of_score_live_and_the_log_agree(server: Serving, photos: Path, tmp_path: Path) -> None:
    found = score(server, photos, tmp_path / "report")
    answers = tmp_path / "report" / "answers.csv"
    with answers.open() as file:
        asked = {line["request_id"] for line in csv.DictReader(file)}
    wait_until(lambda: asked <= logged(server))
    result = run("scripts.late_labels", str(server.folder / "predictions.jsonl"), "--labels", str(answers), "--json")
    live = json.loads(result.stdout)["live"]

    assert (live["accuracy"], live["sure"], live["unsure_labelled"]) == (found["accuracy"], found["sure"], found["unsure"])
    assert (found["versions"], found["archives"]) == ({server.describe()["modelVersion"]: 24}, {server.archive_digest: 24})
    assert found["by_label"]["cat"]["right"]["photos"] == found["by_label"]["dog"]["right"]["photos"] == 12


def test_the_documented_commands_do_what_the_document_says(server: Serving, photos: Path, tmp_path: Path) -> None:
    score_live, late_labels, listening = (command.split()[1:] for command in commands("docs/live-accuracy.md"))
    (tmp_path / "photos").symlink_to(photos)
    [archive] = [tmp_path / word for word in late_labels if word.endswith(".mar")]
    archive.parent.mkdir()
    archive.symlink_to(server.store / "petclf.mar")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def done(command: list[str], code: int) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "scripts", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == code, result.stderr
        return result.stdout

    text = done([*score_live, "--server", server.url], 1)  # drawings are no photos: the accuracy is below 97 %
    assert {path.name for path in (tmp_path / "build" / "live").iterdir()} == {"report.html", "figures.json", "answers.csv"}
    assert text.startswith("24 photos, 24 answered\naccuracy ")
    (tmp_path / "labels.csv").write_bytes((tmp_path / "build" / "live" / "answers.csv").read_bytes())
    (tmp_path / "predictions.jsonl").symlink_to(server.folder / "predictions.jsonl")
    wait_until(lambda: ", 24 with a label" in done(late_labels, 0))
    assert {path.name for path in (tmp_path / "build" / "late").iterdir()} == {"report.html", "figures.json"}

    address = f"127.0.0.1:{free_port()}"
    command = [word.replace("127.0.0.1:8086", address) for word in listening]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts", *command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"metrics on http://{address}/metrics\n"
        assert samples(f"http://{address}/metrics", server.describe()["modelVersion"])["petclf_live_labelled"] == 24
    finally:
        process.terminate()
        process.communicate()
