"""`make demo`: the first answer that a user sees."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import demo
from scripts.build_archive import build_archive
from tests.documents import commands
from tests.e2e.conftest import ROOT, free_port

pytestmark = pytest.mark.e2e


def test_the_demo_asks_about_a_real_cat_and_a_real_dog_and_says_how_to_go_on(tmp_path: Path) -> None:
    build_archive(ROOT / "pretrained" / "petclf.pt", tmp_path / "store" / "petclf.mar")
    ports = {name: free_port() for name in ("port", "management-port", "metrics-port", "ready-port")}
    options = [text for name, port in ports.items() for text in (f"--{name}", str(port))]
    command = [sys.executable, "-m", "scripts.demo", "--model-store", str(tmp_path / "store"), "--workers", "1", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = list(itertools.takewhile(lambda line: line != "Ctrl-C ends the server.\n", process.stdout))
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)

    address = f"http://127.0.0.1:{ports['port']}/predictions/petclf"
    asked = [line for line in said if line.startswith("$ ")]
    answers = [json.loads(line) for line in said if line.startswith("{")]
    assert asked == [f"$ curl -T web/examples/{label}.jpg {address}\n" for label in ("cat", "dog")]
    documented, *_ = commands("README.md")
    assert asked[1] == f"$ {documented}\n".replace(":8080", f":{ports['port']}")
    assert [(answer["label"], answer["unsure"]) for answer in answers] == [("cat", False), ("dog", False)]
    assert said[-3:] == [
        f"Your own photo:  curl -T your.jpg {address}\n",
        f"A whole folder:  .venv/bin/petclf predict your-folder/ --server http://127.0.0.1:{ports['port']}\n",
        f"In a browser:    {address}\n",
    ]
    assert status == 0


def test_a_model_with_other_labels_is_not_asked_about_cats_and_dogs() -> None:
    assert [path.name for path in demo.photos(["bird", "dog", "fish"])] == ["dog.jpg"]
    assert demo.photos(["ship", "train"]) == []


@pytest.mark.parametrize(
    ("terminal", "environment", "desktop"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (False, {"DISPLAY": ":0"}, False),
        (True, {"DISPLAY": ":0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, False),
        (True, {}, False),
    ],
)
def test_the_page_opens_only_where_someone_sits_before_a_screen(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], desktop: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert demo.has_desktop() == desktop
