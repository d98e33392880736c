"""Image and compose stack, built and run: what an operator relies on."""

import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.bystanders import Client, summary
from scripts.make_key import add
from serving.store import find_archives
from tests.archives import archive_called
from tests.conftest import draw_folder
from tests.container.stack import MISSING, PHOTO, ROOT, Load, Stack, docker
from tests.documents import commands
from tests.e2e.awkward import cases
from tests.e2e.conftest import free_port, wait_until
from tests.training.conftest import run_module, write_params

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

pytestmark = [pytest.mark.container, pytest.mark.slow]

PROFILES = [word for name in ("monitoring", "training", "roll") for word in ("--profile", name)]
PORTS = [22, 80, 443, 3000, 5000, 7070, 7071, *range(8080, 8086), 9000, 9090, 9093, 9094]


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
        "PETCLF_GRAFANA_PORT": str(free_port()), "PETCLF_MLFLOW_PORT": str(free_port()),
    }  # fmt: skip
    running = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}", ("operator", secret), settings)
    try:
        running.compose("up", "-d", "--wait")
        running.wait_until_well()
        yield running
    finally:
        running.compose(*PROFILES, "down", "-v", check=False)


def test_the_image_states_what_it_is_and_is_not_large(images: None) -> None:  # noqa: ARG001
    image = json.loads(docker("image", "inspect", "petclf:local"))[0]
    labels = image["Config"]["Labels"]
    assert image["Config"]["User"] == "10001:10001"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert image["Size"] / 1e6 <= 850  # Python's own library and everything of Debian's included


def test_the_image_has_python_and_nothing_else_to_run(images: None) -> None:  # noqa: ARG001
    """Who takes over a worker finds no shell, no package manager and no second language."""
    wanted = {"sh", "bash", "dash", "perl", "apt", "apt-get", "dpkg", "pip", "pip3", "easy_install", "busybox", "curl", "wget"}
    modules = ("pip", "setuptools", "ensurepip", "pkg_resources", "wheel")
    program = (
        "import importlib.util, json, os; folders = ('proc', 'sys', 'dev'); names = set()\n"
        "for root, inside, files in os.walk('/'):\n"
        "    inside[:] = [name for name in inside if root != '/' or name not in folders]\n"
        "    names |= set(files)\n"
        f"print(json.dumps([sorted(names & {wanted}), [name for name in {modules} if importlib.util.find_spec(name)], "
        "sorted(set(os.listdir('/usr/bin')) | set(os.listdir('/usr/sbin')) | set(os.listdir('/usr/local/bin')))]))"
    )
    said = docker("run", "--rm", "--entrypoint", "python", "petclf:local", "-c", program)
    assert json.loads(said) == [[], [], ["python", "python3", "python3.11"]]


def test_the_image_names_the_debian_packages_of_its_libraries(images: None) -> None:  # noqa: ARG001
    """A scanner reads them, or it would find nothing to warn of."""
    program = (
        "import json, pathlib; print(json.dumps([path.read_text() for path in pathlib.Path('/var/lib/dpkg/status.d').iterdir()]))"
    )
    packages = json.loads(docker("run", "--rm", "--entrypoint", "python", "petclf:local", "-c", program))
    named = {re.findall(r"^Package: (.*)$", text, re.MULTILINE)[0] for text in packages}
    assert {"libc6", "libstdc++6"} <= named
    assert [text for text in packages if "\nVersion: " not in text] == []


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


def test_the_server_cannot_reach_out(stack: Stack) -> None:
    program = "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 443), timeout=2)\n    print('out')\nexcept OSError:\n    print('in')"
    assert docker("exec", stack.container("torchserve"), "python", "-c", program) == "in"
    networks = [f"petclftest_{name}" for name in ("inner", "scraping")]
    assert docker("network", "inspect", "-f", "{{.Internal}}", *networks).split() == ["true", "true"]


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
    """A program beside the services, on one network or in one container's place: they are published to nobody."""

    network: str

    def run(self, program: str, *arguments: str) -> str:
        # a name that nobody has on this network is asked for elsewhere, where nobody answers
        patience = "RES_OPTIONS=timeout:1 attempts:1"
        container = ["run", "--rm", "-e", patience, "--network", self.network, "--entrypoint", "python", "petclf:local"]
        return docker(*container, "-c", program, *arguments, check=False)

    def get(self, url: str, body: Any = None) -> Any:
        """Return what is answered, nothing if nothing is; with a body it is a POST."""
        program = (
            "import sys, urllib.request as http; data = sys.argv[2].encode() or None; "
            "print(http.urlopen(http.Request(sys.argv[1], data, {'Content-Type': 'application/json'}), timeout=5).read().decode())"
        )
        said = self.run(program, url, json.dumps(body) if body is not None else "")
        with contextlib.suppress(ValueError):
            return json.loads(said)
        return None

    def post(self, urls: list[str]) -> dict[str, int]:
        """Return the statuses of those that answer."""
        program = (
            "import concurrent.futures, json, sys, urllib.request as http, urllib.error as errors\n"
            "def status(url):\n"
            "    try: return http.urlopen(http.Request(url, b'{}', {'Content-Type': 'application/json'}), timeout=3).status\n"
            "    except errors.HTTPError as error: return error.code\n"
            "    except OSError: return 0\n"
            "with concurrent.futures.ThreadPoolExecutor(64) as pool:\n"
            "    print(json.dumps({url: found for url, found in zip(sys.argv[1:], pool.map(status, sys.argv[1:])) if found}))"
        )
        answered: dict[str, int] = json.loads(self.run(program, *urls))
        return answered

    def answering(self, addresses: dict[str, list[str]]) -> dict[str, list[int]]:
        """Return which ports of which service answer, at any of its addresses or under its name."""
        program = (
            "import concurrent.futures, json, socket, sys\n"
            "def known(name):\n"
            "    try: return [found[4][0] for found in socket.getaddrinfo(name, None, socket.AF_INET)]\n"
            "    except OSError: return []\n"
            "def answers(target):\n"
            "    try: socket.create_connection(target[1:], timeout=2).close()\n"
            "    except OSError: return None\n"
            "    return target[0], target[2]\n"
            "addresses, ports = json.loads(sys.argv[1]), json.loads(sys.argv[2])\n"
            "with concurrent.futures.ThreadPoolExecutor(512) as pool:\n"
            "    named = dict(zip(addresses, pool.map(known, addresses)))\n"
            "    targets = [(name, one, port) for name in addresses for one in {*addresses[name], *named[name]} for port in ports]\n"
            "    print(json.dumps(sorted({found for found in pool.map(answers, targets) if found})))"
        )
        found: dict[str, list[int]] = {}
        for service, port in json.loads(self.run(program, json.dumps(addresses), json.dumps(PORTS))):
            found.setdefault(service, []).append(port)
        return found

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
    stack.compose("--profile", "monitoring", "up", "-d", "prometheus", "alertmanager", "probe")
    return Inside("petclftest_monitoring")


def test_prometheus_reads_everything_that_has_metrics_and_knows_where_to_send_alerts(stack: Stack, monitored: Inside) -> None:
    stack.wait_until_well()
    up = {"petclf", "supervisor", "gateway", "probe", "prometheus"}
    monitored.wait_for(lambda: {found["metric"]["job"] for found in monitored.query("up == 1")} == up)
    managers = monitored.get("http://prometheus:9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [manager["url"] for manager in managers] == ["http://alertmanager:9093/api/v2/alerts"]


def test_the_probe_gets_right_answers_at_the_public_address(stack: Stack, monitored: Inside) -> None:
    stack.wait_until_well()
    right = monitored.wait_for(lambda: monitored.query('petclf_probe_total{result="right"} > 0'))
    assert [found["metric"]["instance"] for found in right] == ["probe:8085"]
    assert [found["value"][1] for found in monitored.query("petclf_probe_success")] == ["1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="killing a container's process from outside needs root")
def test_killed_prometheus_comes_back_with_what_it_had_recorded(stack: Stack, monitored: Inside) -> None:
    monitored.wait_for(lambda: monitored.query('count_over_time(up{job="petclf"}[1h]) > 2'))
    before = monitored.query('min_over_time(timestamp(up{job="petclf"})[1h:10s])')[0]["value"][1]
    os.kill(stack.pid("prometheus"), signal.SIGKILL)
    monitored.wait_for(lambda: monitored.get("http://prometheus:9090/api/v1/status/buildinfo"))
    assert monitored.query('min_over_time(timestamp(up{job="petclf"})[1h:10s])')[0]["value"][1] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="killing a container's process from outside needs root")
def test_killed_alertmanager_comes_back_with_its_silences(stack: Stack, monitored: Inside) -> None:  # noqa: ARG001
    alerting = Inside("petclftest_alerting")
    silences = "http://alertmanager:9093/api/v2/silences"
    now = datetime.now(timezone.utc)
    until = (now + timedelta(hours=1)).isoformat()
    quiet = {"name": "alertname", "value": "PetclfDrift", "isRegex": False}
    silence = {"matchers": [quiet], "startsAt": now.isoformat(), "endsAt": until, "createdBy": "a test", "comment": "known"}
    alerting.wait_for(lambda: alerting.get(silences, silence))
    time.sleep(12)  # it is written every ten seconds
    killed = stack.pid("alertmanager")
    os.kill(killed, signal.SIGKILL)
    alerting.wait_for(lambda: stack.pid("alertmanager") not in (0, killed))
    assert [found["comment"] for found in alerting.wait_for(lambda: alerting.get(silences))] == ["known"]


def documented() -> dict[str, dict[str, list[int]]]:
    """Return the table of docs/security.md: what answers to a container on each network."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table: dict[str, dict[str, list[int]]] = {}
    for network, answering in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE):
        services = [] if answering == "nothing" else answering.split("; ")
        table[network] = {service.split()[0]: [int(port) for port in re.findall(r"\d+", service)] for service in services}
    return table


def together(*rows: dict[str, list[int]], but: str) -> dict[str, list[int]]:
    """Return what several rows say of the other services than one."""
    found: dict[str, set[int]] = {}
    for row in rows:
        for service, ports in row.items():
            found.setdefault(service, set()).update(ports)
    return {service: sorted(ports) for service, ports in found.items() if service != but}


@pytest.fixture(scope="module")
def everybody(stack: Stack, monitored: Inside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:  # noqa: ARG001
    """The addresses of every service, all of them up. Grafana and MLflow are replaced by listeners: walls know no programs."""
    listeners = {"grafana": "3000", "mlflow": "5000"}
    override = tmp_path_factory.mktemp("compose") / "listeners.yml"
    listening = {
        name: {"image": "petclf:local", "entrypoint": ["python", "-m", "http.server", port]} for name, port in listeners.items()
    }
    override.write_text(json.dumps({"services": listening}), encoding="utf-8")
    files = {"COMPOSE_FILE": f"{ROOT / 'docker-compose.yml'}{os.pathsep}{override}"}
    whole = Stack(stack.url, stack.management, stack.key, {**stack.settings, **files})
    whole.compose(*PROFILES, "up", "-d", "--no-deps", "grafana", "mlflow", "spare")
    services = ("torchserve", "spare", "gateway", "probe", "prometheus", "alertmanager", "grafana", "mlflow")
    addresses = {}
    for service in services:
        networks = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", whole.container(service)))
        addresses[service] = [network["IPAddress"] for network in networks.values()]
    beside = Inside("petclftest_scraping")
    last = 8082  # of the ports that TorchServe opens
    beside.wait_for(lambda: last in beside.answering({"spare": addresses["spare"]}).get("spare", []), 300)
    yield addresses
    whole.compose(*PROFILES, "rm", "-s", "-f", "grafana", "mlflow", "spare")


@pytest.mark.parametrize("network", sorted(documented()))
def test_on_each_network_only_that_answers_which_the_documents_say(everybody: dict[str, list[str]], network: str) -> None:
    assert Inside(f"petclftest_{network}").answering(everybody) == documented()[network]


@pytest.mark.parametrize(
    ("service", "networks"),
    [
        ("torchserve", ("inner", "scraping")),
        ("spare", ("inner", "scraping")),
        ("gateway", ("public", "inner", "scraping")),
        ("probe", ("public", "scraping")),
        ("prometheus", ("scraping", "monitoring", "alerting")),
        ("alertmanager", ("alerting", "pager")),
        ("grafana", ("monitoring", "console")),
        ("mlflow", ("tracking",)),
    ],
)
def test_a_service_that_is_taken_over_reaches_what_its_networks_have(
    stack: Stack, everybody: dict[str, list[str]], service: str, networks: tuple[str, ...]
) -> None:
    place = Inside(f"container:{stack.container(service)}")
    others = {name: addresses for name, addresses in everybody.items() if name != service}
    assert place.answering(others) == together(*(documented()[network] for network in networks), but=service)


def test_only_prometheus_can_silence_and_nobody_can_reload_or_end_prometheus(
    stack: Stack, everybody: dict[str, list[str]]
) -> None:
    services = ("torchserve", "gateway", "probe", "grafana", "prometheus")
    places = {name: Inside(f"container:{stack.container(name)}") for name in services} | {
        "a stranger": Inside("petclftest_public")
    }
    silences = [f"http://{host}:9093/api/v2/silences" for host in ("alertmanager", *everybody["alertmanager"])]
    hosts = ("prometheus", *everybody["prometheus"])
    orders = [f"http://{host}:9090/-/{order}" for host in hosts for order in ("reload", "quit")]
    told = {
        name: {(url.split(":")[2], status) for url, status in place.post(silences + orders).items()}
        for name, place in places.items()
    }
    refused = {("9090/-/reload", 403), ("9090/-/quit", 403)}
    assert told == {
        "torchserve": set(), "gateway": set(), "probe": set(), "a stranger": set(),
        "grafana": refused,
        "prometheus": {*refused, ("9093/api/v2/silences", 422)},  # it brings alerts there; this silence lacked everything
    }  # fmt: skip


def test_alertmanagers_way_out_is_the_pagers_network(stack: Stack, monitored: Inside) -> None:  # noqa: ARG001
    program = (
        "import socket; lines = [line.split() for line in open('/proc/net/route')]; "
        "print(*(socket.inet_ntoa(bytes.fromhex(line[2])[::-1]) for line in lines if line[1] == '00000000'))"
    )
    gateway = Inside(f"container:{stack.container('alertmanager')}").run(program)
    pager = docker("network", "inspect", "-f", "{{.Internal}} {{(index .IPAM.Config 0).Gateway}}", "petclftest_pager")
    assert pager == f"false {gateway}"


def by_the_document(stack: Stack, what: str) -> str:
    """Run the command of docs/security.md that has these words in it."""
    [command] = [one for one in commands("docs/security.md") if what in one]
    _, _, verb, *words = shlex.split(command)
    return stack.compose(verb, *(["-T"] if verb == "exec" else []), *words)


def test_the_operator_looks_into_prometheus_and_sets_a_silence_as_documented(stack: Stack, monitored: Inside) -> None:  # noqa: ARG001
    by_the_document(stack, "promtool query")  # what it prints depends on what is firing
    assert by_the_document(stack, "9093 alert").startswith("Alertname")
    silence = by_the_document(stack, "silence add").strip()
    found = Inside("petclftest_alerting").get("http://alertmanager:9093/api/v2/silences")
    assert [(one["comment"], one["matchers"][0]["value"]) for one in found if one["id"] == silence] == [("known", "PetclfDrift")]


def test_a_configuration_is_read_anew_after_the_documented_signals(stack: Stack, monitored: Inside) -> None:
    loaded = "prometheus_config_last_reload_success_timestamp_seconds"
    before = monitored.wait_for(lambda: monitored.query(loaded))[0]["value"][1]
    read = "Completed loading of configuration file"
    times = stack.compose("logs", "alertmanager").count(read)
    by_the_document(stack, "HUP prometheus")
    by_the_document(stack, "HUP alertmanager")
    monitored.wait_for(lambda: monitored.query(loaded)[0]["value"][1] != before)
    assert monitored.query("prometheus_config_last_reload_successful")[0]["value"][1] == "1"
    wait_until(lambda: stack.compose("logs", "alertmanager").count(read) == times + 1)


@pytest.fixture
def store(images: None, tmp_path: Path) -> Path:  # noqa: ARG001
    """A model store on this machine, with the released version, that the container's user may read."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    folder = tmp_path / "model_store"
    folder.mkdir()
    shutil.copy(find_archives(ROOT / "model_store")[0].path, folder)
    return folder


@pytest.fixture
def from_store(stack: Stack, store: Path) -> Iterator[Stack]:
    """A second stack, whose server takes its versions from that store."""
    port, management_port = free_port(), free_port()
    settings = stack.settings | {
        "COMPOSE_PROJECT_NAME": "petclfstore", "PETCLF_NET": "172.30.221", "PETCLF_PORT": str(port), "PETCLF_MANAGEMENT_PORT": str(management_port),
        "PETCLF_STORE": str(store), "COMPOSE_FILE": "docker-compose.yml:docker-compose.store.yml",
    }  # fmt: skip
    running = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}", stack.key, settings)
    try:
        running.compose("up", "-d", "--wait", "torchserve", "gateway")
        running.wait_until_well()
        yield running
    finally:
        running.compose(*PROFILES, "down", "-v", check=False)


def test_what_was_promoted_is_live_after_every_restart(from_store: Stack, store: Path, tmp_path: Path) -> None:
    released = find_archives(store)[0].version
    (tmp_path / "key").write_text(":".join(from_store.key))

    def models(*words: str) -> None:
        command = [sys.executable, "-m", "scripts.models", *words, "--server", f"{from_store.management},{from_store.url}"]
        command += ["--store", str(store), "--key-file", str(tmp_path / "key")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout

    def live() -> str:
        from_store.wait_until_well()
        return requests.post(f"{from_store.url}/predict", PHOTO, timeout=10).headers["x-petclf-version"]

    models("register", str(archive_called("99.1.0", tmp_path / "newer")), "--workers", "1")
    models("promote", "99.1.0", "--force", "a test", "--watch", "1")
    seen = [live()]
    from_store.compose("kill", "torchserve")
    from_store.compose("up", "-d", "--wait", "torchserve")
    seen.append(live())
    from_store.compose("down")  # what a new start of the machine leaves
    from_store.compose("up", "-d", "--wait", "torchserve", "gateway")
    seen.append(live())
    models("rollback", "--workers", "1")
    seen.append(live())
    from_store.compose("restart", "torchserve")
    seen.append(live())

    assert seen == ["99.1.0", "99.1.0", "99.1.0", released, released]


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
    for name in ("manifest", "train", "fit", "evaluate", "export", "register"):
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
