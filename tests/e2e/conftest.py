"""A real TorchServe, started as a user starts it, shared by the tests of a session."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.build_archive import build_archive
from tests.archives import archive_called

ROOT = Path(__file__).parents[2]


PORTS = random.SystemRandom().sample(range(20_000, 32_000), 12_000)  # no client's own port comes from there, as it may from 0's


def free_port() -> int:
    """Return a port that nobody listens on, another one each time."""
    while True:
        port = PORTS.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


@dataclass
class Serving:
    """A running server, and where everything of it is."""

    process: subprocess.Popen[str]
    port: int
    management_port: int
    metrics_port: int
    ready_port: int
    store: Path
    log: Path
    folder: Path
    archive_digest: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def supervisor(self) -> str:
        return f"http://127.0.0.1:{self.ready_port}"

    def predict(self, data: bytes, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"{self.url}/predictions/petclf", data, headers={"Content-Type": "image/jpeg", **named}, timeout=30)

    def explain(self, data: bytes, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}/explanations/petclf", data, headers={"Content-Type": "image/jpeg", **headers}, timeout=30
        )

    def describe(self) -> Any:
        [model] = requests.get(f"{self.management}/models/petclf", params={"customized": "true"}, timeout=30).json()
        return model

    def workers(self) -> list[dict[str, Any]]:
        """What TorchServe itself says of its workers; asks none of them."""
        [model] = requests.get(f"{self.management}/models/petclf", timeout=30).json()
        workers: list[dict[str, Any]] = model["workers"]
        return workers

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def start(
    folder: Path,
    archives: dict[str, Path] | None = None,
    environment: dict[str, str] | None = None,
    *options: str,
    ports: list[int] | None = None,
) -> Serving:
    """Start `python -m scripts.serve`; returns when it says that it is ready."""
    serving = launch(folder, archives, environment, *options, ports=ports)
    end = time.monotonic() + 90
    while '"message": "ready in' not in serving.log.read_text(encoding="utf-8"):
        if serving.process.poll() is not None or time.monotonic() > end:
            serving.process.kill()
            pytest.fail(f"the server did not come up:\n{serving.log.read_text(encoding='utf-8')}")
        time.sleep(0.1)
    return serving


def launch(
    folder: Path,
    archives: dict[str, Path] | None = None,
    environment: dict[str, str] | None = None,
    *options: str,
    ports: list[int] | None = None,
) -> Serving:
    """Start `python -m scripts.serve`, and wait for nothing."""
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    digest = ""
    if archives is None:
        digest = build_archive(ROOT / "pretrained" / "petclf.pt", store / "petclf.mar")
    for name, path in (archives or {}).items():
        shutil.copy(path, store / name)
    ports = ports or [free_port() for _ in range(4)]
    log = folder / "serve.log"
    command = [sys.executable, "-m", "scripts.serve", "--model-store", str(store), "--workers", "2"]
    for name, port in zip(("port", "management-port", "metrics-port", "ready-port"), ports, strict=True):
        command += [f"--{name}", str(port)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PETCLF_PREDICTION_LOG": str(folder / "predictions.jsonl"), **(environment or {})},
        )  # fmt: skip
    return Serving(process, *ports, store, log, folder, digest)


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released model's archive, called 99.10.0."""
    return archive_called("99.10.0", tmp_path_factory.mktemp("newer"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The released model behind a real TorchServe with two workers."""
    serving = start(tmp_path_factory.mktemp("server"))
    yield serving
    with contextlib.suppress(subprocess.TimeoutExpired):
        serving.stop()
    serving.process.kill()
