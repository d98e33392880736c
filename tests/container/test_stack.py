"""Image and compose stack, built and run: what an operator relies on."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.bystanders import Client, summary
from scripts.make_key import add
from tests.conftest import draw_folder
from tests.drawing import draw_photo, encoded
from tests.e2e.awkward import cases
from tests.e2e.conftest import free_port, wait_until
from tests.training.conftest import run_module, write_params

pytestmark = [pytest.mark.container, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=95)


def docker(*arguments: str, check: bool = True, environment: dict[str, str] | None = None, timeout: float = 300) -> str:
    result = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    assert not check or result.returncode == 0, f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


def engine_is_missing() -> str:
    if shutil.which("docker") is None:
        return "no docker here; install Docker to run the container tests"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker engine is running here; start it to run the container tests"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return "docker compose is not installed here"
    for image in ("python:3.11-slim-bookworm", "nginx:1.28-alpine"):
        known = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0
        if (
            not known
            and subprocess.run(["docker", "pull", "-q", image], capture_output=True, check=False, timeout=300).returncode
        ):
            return f"the base image {image} can be had neither here nor from its registry"
    return ""


MISSING = engine_is_missing()
if MISSING:
    pytest.skip(MISSING, allow_module_level=True)


@pytest.fixture(scope="session")
def images() -> None:
    """petclf:local and petclf-gateway:local, built as a user builds them (PETCLF_DOCKER_BUILD adds options to docker build)."""
    options = [f"DOCKER_BUILD={os.environ.get('PETCLF_DOCKER_BUILD', '')}", f"VENV={Path(sys.executable).parents[1]}"]
    (ROOT / "model_store").mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "scripts.build_archive"], cwd=ROOT, check=True, capture_output=True)
    result = subprocess.run(["make", "image-from-archive", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@dataclass
class Stack:
    """The compose stack of the tests, beside whatever else runs here."""

    url: str
    management: str
    key: tuple[str, str]
    settings: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> str:
        return docker("compose", *arguments, check=check, environment=self.settings)

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service)

    def pid(self, service: str) -> int:
        return int(docker("inspect", "-f", "{{.State.Pid}}", self.container(service)))

    def is_well(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.post(f"{self.url}/predict", PHOTO, timeout=5).status_code == 200
        return False

    def wait_until_well(self, seconds: float = 60) -> float:
        started = time.monotonic()
        while not self.is_well():
            assert time.monotonic() - started < seconds, "the stack did not heal"
            time.sleep(0.2)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:  # noqa: ARG001
    secrets = tmp_path_factory.mktemp("secrets")
    secrets.chmod(0o755)
    for parent in (secrets.parent, secrets.parent.parent):  # the gateway's user must get there
        parent.chmod(0o755)
    secret = add(secrets / "management.htpasswd", "operator")
    port, management_port = free_port(), free_port()
    settings = {
        "COMPOSE_PROJECT_NAME": "petclftest", "PETCLF_NET": "172.30.220", "PETCLF_PORT": str(port), "PETCLF_MANAGEMENT_PORT": str(management_port),
        "PETCLF_SECRETS": str(secrets), "GATEWAY_RATE": "2000", "GATEWAY_BURST": "2000",
    }  # fmt: skip
    running = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}", ("operator", secret), settings)
    running.compose("up", "-d", "--wait")
    running.wait_until_well()
    yield running
    running.compose("down", "-v", check=False)


def test_the_image_states_what_it_is_and_is_not_large(images: None) -> None:  # noqa: ARG001
    image = json.loads(docker("image", "inspect", "petclf:local"))[0]
    base = json.loads(docker("image", "inspect", "python:3.11-slim-bookworm"))[0]
    labels = image["Config"]["Labels"]
    assert image["Config"]["User"] == "10001:10001"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert (image["Size"] - base["Size"]) / 1e6 <= 750


def test_nothing_is_compiled_when_a_worker_starts(images: None) -> None:  # noqa: ARG001
    """Compiling takes a second of each start, and nothing could be kept of it: the file system cannot be written."""
    imports = ["-v", "-c", "import ts.model_service_worker, torch, numpy, PIL.ImageCms, pillow_heif, scripts.serve"]
    result = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint", "python", "petclf:local", *imports], capture_output=True, text=True, check=True
    )
    told = result.stderr.splitlines()
    assert sum(line.startswith("# code object from '/usr/local/") for line in told) > 500  # read as they were compiled
    assert [line for line in told if line.startswith("# code object from /usr/local/")] == []


def test_the_smoke_test_passes_through_the_gateway(stack: Stack) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "smoke_test.py"), stack.url], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_that_answering_needs_was_left_out_of_the_image(stack: Stack) -> None:
    wrong = []
    for name, case in cases().items():
        answer = requests.post(f"{stack.url}/predict", case.data, headers={"Content-Type": "image/jpeg"}, timeout=30)
        status = 200 if case.twin is not None else case.status
        if answer.status_code != status or (case.code and answer.json()["error"]["code"] != case.code):
            wrong.append((name, answer.status_code, answer.text[:100]))
    assert wrong == []


def test_from_the_public_network_only_the_gateway_answers(stack: Stack) -> None:
    address = stack.settings["PETCLF_NET"] + ".10"
    program = (
        "import socket, urllib.request, urllib.error, json\n"
        "def open_at(host, port):\n"
        "    try:\n        socket.create_connection((host, port), timeout=2).close(); return True\n"
        "    except OSError: return False\n"
        "def status(url):\n"
        "    try: return urllib.request.urlopen(url, timeout=5).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        f"ports = [f'{{host}}:{{port}}' for host in ('torchserve', '{address}', 'gateway') for port in (7070, 7071, 8080, 8081, 8082, 8083, 9000) if open_at(host, port)]\n"
        "print(json.dumps([ports, status('http://gateway:8080/ready'), status('http://gateway:8081/models')]))"
    )
    said = docker("run", "--rm", "--network", "petclftest_public", "--entrypoint", "python", "petclf:local", "-c", program)
    assert json.loads(said) == [["gateway:8080", "gateway:8081"], 200, 401]


def test_the_server_cannot_reach_out(stack: Stack) -> None:
    program = "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 443), timeout=2)\n    print('out')\nexcept OSError:\n    print('in')"
    assert docker("exec", stack.container("torchserve"), "python", "-c", program) == "in"


def test_tricks_with_headers_and_paths_come_to_nothing(stack: Stack) -> None:
    for headers in ({"describe": "True"}, {"explain": "True"}, {"ts_stream_next": "true"}):
        answer = requests.post(f"{stack.url}/predict", PHOTO, headers={"Content-Type": "image/jpeg", **headers}, timeout=10)
        assert (answer.status_code, "explanation" in answer.json()) == (200, False)
    for path in ("/models", "/ping", "/metrics", "/api-description", "/predictions/petclf/../../models"):
        assert requests.get(stack.url + path, timeout=10).status_code == 404


def test_management_and_the_log_need_the_key(stack: Stack) -> None:
    requests.post(f"{stack.url}/predict", PHOTO, headers={"X-Request-Id": "in-the-log"}, timeout=10)
    assert requests.get(f"{stack.management}/models", timeout=10).status_code == 401
    card = requests.get(f"{stack.management}/models/petclf?customized=true", auth=stack.key, timeout=10).json()[0]
    assert set(card["customizedMetadata"]) == {"card", "thresholds", "provenance", "archive", "recent"}
    wait_until(lambda: "in-the-log" in requests.get(f"{stack.management}/prediction-log", auth=stack.key, timeout=10).text)


class Load:
    """Requests all the time, and what became of them."""

    def __init__(self, stack: Stack, threads: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.odd: list[str] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(stack,)) for _ in range(threads)]

    def ask(self, stack: Stack) -> None:
        with requests.Session() as session:
            while not self.stop.is_set():
                try:
                    answer = session.post(f"{stack.url}/predict", PHOTO, headers={"Content-Type": "image/jpeg"}, timeout=20)
                except requests.RequestException as error:
                    self.odd.append(repr(error))
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 503:
                    if answer.json()["error"]["code"] != "busy" or "Retry-After" not in answer.headers:
                        self.odd.append(answer.text)
                    time.sleep(0.05)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_a_server_that_ends_and_comes_back_costs_nothing_but_busy(stack: Stack) -> None:
    """SIGTERM under load: whoever asks gets an answer or a 503 that says when to come back, never a cut or an odd error."""
    with Load(stack) as load:
        docker("stop", "-t", "40", stack.container("torchserve"))
        code = docker("inspect", "-f", "{{.State.ExitCode}}", stack.compose("ps", "-a", "-q", "torchserve") or "")
        stack.compose("up", "-d", "--wait", "torchserve")
        stack.wait_until_well()
        time.sleep(1)
    assert code == "0"
    assert load.odd == []
    assert set(load.statuses) == {200, 503}
    assert load.statuses[200] > 50


def test_rolling_to_a_new_image_fails_not_one_request(stack: Stack) -> None:
    with Load(stack) as load:
        old = stack.container("torchserve")
        result = subprocess.run(
            ["make", "roll"], cwd=ROOT, env={**os.environ, **stack.settings}, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert stack.container("torchserve") != old
        while sum(load.statuses.values()) < 5000:
            time.sleep(0.5)
    assert (set(load.statuses), load.odd) == ({200}, [])


def test_the_client_gets_every_photo_answered_while_the_only_server_is_away(stack: Stack, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:04d}.jpg").write_bytes(PHOTO)
    names = "\n".join(str(path) for path in sorted(tmp_path.iterdir())) + "\n"
    (tmp_path / "names").write_text(names * 17, encoding="utf-8")  # 1,700 photos
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), "--list", "--server", stack.url, "--csv", "--retries", "12"]
    with (tmp_path / "names").open() as source, (tmp_path / "answers").open("w") as target:
        client = subprocess.Popen(command, stdin=source, stdout=target, stderr=subprocess.DEVNULL)
        time.sleep(1)
        stack.compose("up", "-d", "--force-recreate", "--no-deps", "torchserve")
        code = client.wait(240)
    lines = (tmp_path / "answers").read_text(encoding="utf-8").splitlines()
    assert (code, len(lines)) == (0, 1701)


@pytest.mark.parametrize("service", ["torchserve", "gateway"])
@pytest.mark.skipif(os.geteuid() != 0, reason="killing a container's process from outside needs root")
def test_what_is_killed_comes_back_by_itself_and_nothing_recorded_is_lost(stack: Stack, service: str) -> None:
    stack.wait_until_well()
    before = requests.get(f"{stack.management}/prediction-log", auth=stack.key, timeout=10).text.splitlines()
    os.kill(stack.pid(service), signal.SIGKILL)
    time.sleep(0.5)
    stack.wait_until_well()
    after = requests.get(f"{stack.management}/prediction-log", auth=stack.key, timeout=10).text.splitlines()
    assert after[: len(before)] == before


@dataclass
class Inside:
    """A program beside the services: they are published to nobody."""

    network: str

    def get(self, url: str, body: Any = None) -> Any:
        """Return what is answered, nothing if nothing is; with a body it is a POST."""
        program = (
            "import sys, urllib.request as http; data = sys.argv[2].encode() or None; "
            "print(http.urlopen(http.Request(sys.argv[1], data, {'Content-Type': 'application/json'}), timeout=5).read().decode())"
        )
        sent = json.dumps(body) if body is not None else ""
        container = ["run", "--rm", "--network", self.network, "--entrypoint", "python", "petclf:local"]
        said = docker(*container, "-c", program, url, sent, check=False)
        with contextlib.suppress(ValueError):
            return json.loads(said)
        return None

    def query(self, expression: str) -> list[Any]:
        answer = self.get(f"http://prometheus:9090/api/v1/query?query={urllib.parse.quote(expression)}")
        return answer["data"]["result"] if answer else []

    def wait_for(self, found: Callable[[], object], seconds: float = 90) -> Any:
        end = time.monotonic() + seconds
        while not (result := found()):
            assert time.monotonic() < end, "it did not come true"
            time.sleep(1)
        return result


@pytest.fixture(scope="module")
def monitored(stack: Stack) -> Inside:
    for image in ("prom/prometheus:v2.53.5", "prom/alertmanager:v0.27.0"):
        if not (docker("images", "-q", image) or docker("pull", "-q", image, check=False)):
            pytest.skip(f"the image {image} can be had neither here nor from its registry")
    stack.compose("--profile", "monitoring", "up", "-d", "prometheus", "alertmanager")
    return Inside("petclftest_inner")


def test_prometheus_reads_server_and_gateway_and_knows_where_to_send_alerts(stack: Stack, monitored: Inside) -> None:
    stack.wait_until_well()
    up = {"petclf", "supervisor", "gateway", "prometheus"}
    monitored.wait_for(lambda: {found["metric"]["job"] for found in monitored.query("up == 1")} == up)
    managers = monitored.get("http://prometheus:9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [manager["url"] for manager in managers] == ["http://alertmanager:9093/api/v2/alerts"]


@pytest.mark.skipif(os.geteuid() != 0, reason="killing a container's process from outside needs root")
def test_killed_prometheus_comes_back_with_what_it_had_recorded(stack: Stack, monitored: Inside) -> None:
    monitored.wait_for(lambda: monitored.query('count_over_time(up{job="petclf"}[1h]) > 2'))
    before = monitored.query('min_over_time(timestamp(up{job="petclf"})[1h:10s])')[0]["value"][1]
    os.kill(stack.pid("prometheus"), signal.SIGKILL)
    monitored.wait_for(lambda: monitored.get("http://prometheus:9090/api/v1/status/buildinfo"))
    assert monitored.query('min_over_time(timestamp(up{job="petclf"})[1h:10s])')[0]["value"][1] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="killing a container's process from outside needs root")
def test_killed_alertmanager_comes_back_with_its_silences(stack: Stack, monitored: Inside) -> None:
    silences = "http://alertmanager:9093/api/v2/silences"
    now = datetime.now(timezone.utc)
    until = (now + timedelta(hours=1)).isoformat()
    quiet = {"name": "alertname", "value": "PetclfDrift", "isRegex": False}
    silence = {"matchers": [quiet], "startsAt": now.isoformat(), "endsAt": until, "createdBy": "a test", "comment": "known"}
    monitored.wait_for(lambda: monitored.get(silences, silence))
    time.sleep(12)  # it is written every ten seconds
    killed = stack.pid("alertmanager")
    os.kill(killed, signal.SIGKILL)
    monitored.wait_for(lambda: stack.pid("alertmanager") not in (0, killed))
    assert [found["comment"] for found in monitored.wait_for(lambda: monitored.get(silences))] == ["known"]


def test_data_survives_down_and_up(stack: Stack) -> None:
    requests.post(f"{stack.url}/predict", PHOTO, headers={"X-Request-Id": "before-down"}, timeout=10)
    stack.compose("down")
    stack.compose("up", "-d", "--wait")
    stack.wait_until_well()
    assert "before-down" in requests.get(f"{stack.management}/prediction-log", auth=stack.key, timeout=10).text


def test_a_wrong_or_missing_model_ends_the_container_at_once(images: None, tmp_path: Path) -> None:  # noqa: ARG001
    tmp_path.chmod(0o755)
    for content, told in ((None, "no archive"), (b"", "is empty"), (b"text", "is no archive")):
        if content is not None:
            (tmp_path / "petclf.mar").write_bytes(content)
        result = subprocess.run(
            ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "-v", f"{tmp_path}:/opt/petclf/model_store:ro", "petclf:local"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert result.returncode == 2
        assert told in result.stderr


@pytest.mark.parametrize("limit", ["180m", "420m"])  # for Java alone, and for Java and half a worker
def test_too_little_memory_ends_the_container_with_that_reason(images: None, limit: str) -> None:  # noqa: ARG001
    limits = ["-m", limit, "--memory-swap", limit]
    result = subprocess.run(
        ["docker", "run", "--rm", *limits, "--read-only", "--tmpfs", "/tmp", "petclf:local", "--ready-seconds", "12"],
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert result.returncode == 2
    assert "too little memory, a process was killed for it" in result.stderr.splitlines()[-1]


def test_bytes_that_look_like_a_password_are_not_in_the_image(images: None) -> None:  # noqa: ARG001
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "petclf:local")
    assert base64.b64encode(b"operator:") not in history.encode()
    assert re.findall(r"(?i)(password|secret|token)=", history) == []


@pytest.mark.parametrize(
    "attack", ["slow-headers-9", "slow-bodies-1", "slow-readers-1", "flood-tiny-1", "flood-large-1", "flood-keys"]
)
def test_an_attacker_does_not_stop_the_others(stack: Stack, attack: str) -> None:
    """With the limits as they are shipped; the whole table: make attack. The attacker shares the gateway's network."""
    usual = {**stack.settings, "GATEWAY_RATE": "100", "GATEWAY_BURST": "200"}
    Stack(stack.url, stack.management, stack.key, usual).compose("up", "-d", "--wait", "--no-deps", "gateway")
    stack.wait_until_well()
    network, program = f"container:{stack.container('gateway')}", f"{ROOT / 'benchmarks' / 'attackers.py'}:/attackers.py:ro"
    good = Client(int(stack.url.rsplit(":", 1)[1]), rate=4, path="/predict", body=PHOTO, must_hold=b'"label"')
    with good.asking():
        command = ["run", "--rm", "--network", network, "-v", program, "--entrypoint", "python", "petclf:local", "/attackers.py"]
        got = json.loads(docker(*command, attack, "--seconds", "10"))
    result = summary(good.outcomes)
    assert (result.answered, result.others) == (1.0, {})
    assert result.count >= 40
    assert got
    assert docker("inspect", "-f", "{{.RestartCount}}", stack.container("gateway")) == "0"


@pytest.fixture(scope="module")
def tracking() -> Iterator[Stack]:
    options = f"DOCKER_BUILD={os.environ.get('PETCLF_DOCKER_BUILD', '')}"
    result = subprocess.run(["make", "image-mlflow", options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    port = free_port()
    settings = {"COMPOSE_PROJECT_NAME": "petclftracking", "PETCLF_NET": "172.30.221", "PETCLF_MLFLOW_PORT": str(port)}
    stack = Stack(f"http://127.0.0.1:{port}", "", ("", ""), settings)
    stack.compose("--profile", "training", "up", "-d", "--wait", "mlflow")
    yield stack
    stack.compose("--profile", "training", "down", "-v", check=False)


def test_a_training_is_tracked_by_the_server_and_survives_its_death(tracking: Stack, tmp_path: Path) -> None:
    draw_folder(tmp_path / "photos", ("cat", "dog"), 60)
    write_params(tmp_path, tracking=True, epochs=2)
    for name in ("manifest", "train", "evaluate", "export", "register"):
        result = run_module(f"training.{name}", cwd=tmp_path, MLFLOW_TRACKING_URI=tracking.url)
        assert result.returncode == 0, result.stderr
    alias = f"{tracking.url}/api/2.0/mlflow/registered-models/alias?name=petclf&alias=candidate"
    before = requests.get(alias, timeout=20).json()["model_version"]

    if os.geteuid() == 0:
        os.kill(tracking.pid("mlflow"), signal.SIGKILL)
    tracking.compose("--profile", "training", "up", "-d", "--wait", "mlflow")
    wait_for_answer(f"{tracking.url}/health")
    tracking.compose("--profile", "training", "down")
    tracking.compose("--profile", "training", "up", "-d", "--wait", "mlflow")
    wait_for_answer(f"{tracking.url}/health")

    assert requests.get(alias, timeout=20).json()["model_version"] == before
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "scripts.build_archive",
        "--model",
        "models:/petclf@candidate",
        "--output",
        str(tmp_path / "tracked.mar"),
    ]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MLFLOW_TRACKING_URI": tracking.url}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "tracked.mar").stat().st_size > 1e6


def wait_for_answer(url: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.5)
    pytest.fail(f"no answer from {url}")
