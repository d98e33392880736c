"""From a folder of photos to a served answer, by the commands of docs/your-own-photos.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import draw_folder
from tests.drawing import draw_photo
from tests.e2e.conftest import ROOT, free_port, wait_until
from tests.training.conftest import write_params

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv*", "data", "build", "reports", "mlruns", "mlartifacts", "*.db", "*.mar", "*.sha256", "__pycache__", ".*_cache"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh clone with photos of two labels, and settings that train small networks in seconds."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    draw_folder(folder / "photos", ("cat", "wind mill"), 50)
    write_params(folder)
    draw_photo("cat", 999).save(folder / "photo.jpg")
    return folder


def documented() -> list[str]:
    text = (ROOT / "docs" / "your-own-photos.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^## The commands\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


def made(command: str) -> list[str]:
    """Return the words of a make command, with this environment instead of one that make would set up."""
    return ["make", "-o", f"{sys.prefix}/.ready", *command.split()[1:], f"VENV={sys.prefix}"]


@pytest.fixture
def served(project: Path) -> Iterator[int]:
    """Run every command but the last, as documented; yields the port on which `make serve` answers."""
    *steps, serve, _ = documented()
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
        yield ports["port"]
    finally:
        process.terminate()
        process.wait(60)


def test_the_documented_commands_lead_from_a_folder_to_an_answer(project: Path, served: int) -> None:
    *_, ask = documented()

    answer = subprocess.run(
        ask.replace(":8080/", f":{served}/").split(), cwd=project, capture_output=True, text=True, check=True
    ).stdout

    assert set(json.loads(answer)["probabilities"]) == {"cat", "wind mill"}
    assert json.loads(answer)["model"]["name"] == "petclf"
