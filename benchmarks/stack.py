"""The whole of petclf without Docker: a server, the gateway in front as it is shipped, a probe, and a Prometheus that watches them."""

import contextlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bystanders import Client
from benchmarks.drawing import draw_photo, encoded
from scripts.make_key import add
from serving.machine import die_with_parent

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "deploy" / "prometheus"
PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts servers
START_SECONDS, STOP_SECONDS = 180, 40  # long, for a machine that others use as well
PORTS = ("api", "management", "server", "server management", "petclf", "supervisor", "gateway", "probe")
PHOTO = encoded(draw_photo("cat", 1, (500, 375)), quality=90)


@dataclass(frozen=True)
class Alert:
    """An alert that fired: so many seconds after the start, and for how long; none: it goes on."""

    name: str
    severity: str
    after: float
    seconds: float | None


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus with the shipped rules and alerts."""

    url: str

    def ask(self, path: str, **parameters: object) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with contextlib.closing(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10)) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[str]:
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def fired(self, start: float, end: float) -> list[Alert]:
        """Return what fired between two moments (time.time)."""
        found = self.ask("query_range", query='ALERTS{alertstate="firing"}', start=start, end=end, step=1)["result"]
        return sorted((alert_of(one, start, end) for one in found), key=lambda alert: (alert.after, alert.name))


def alert_of(series: Any, start: float, end: float) -> Alert:
    """Return an alert from its values, one a second."""
    first, last = (float(series["values"][at][0]) for at in (0, -1))
    labels = series["metric"]
    return Alert(labels["alertname"], labels.get("severity", ""), first - start, last - first if last < end - 2 else None)


@dataclass(frozen=True)
class Stack:
    """What runs, and how to reach it."""

    port: int
    management_port: int
    server_management_port: int
    server: "Restarted"
    keys: Mapping[str, str]  # NAME:SECRET of operator, client and attacker; the last two only where asking needs a key
    tls: ssl.SSLContext | None
    prometheus: Prometheus | None

    def client(self, rate: float, path: str, body: bytes | None = None, **options: Any) -> Client:
        return Client(self.port, rate, path, body, key=self.keys.get("client", ""), tls=self.tls, **options)

    def operator(self, rate: float, **options: Any) -> Client:
        return Client(self.management_port, rate, "/models", key=self.keys["operator"], tls=self.tls, **options)

    def good_client(self, rate: float) -> Client:
        return self.client(rate, "/predict", PHOTO, must_hold=b'"label"')


@contextlib.contextmanager
def running(
    folder: Path, *, tls: bool = False, keys: bool = False, watched: bool = False, url_hosts: str = "", **gateway: str
) -> Iterator[Stack]:
    """Start everything with its logs in a folder; `gateway` overrides the gateway's settings; end everything, whatever happens."""
    require_program("nginx", "Debian: apt-get install nginx libnginx-mod-http-lua")
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    who = ("operator", *(("client", "attacker", "probe") if keys else ()))
    known = {name: f"{name}:{add(secrets / password_file(name), name)}" for name in who}
    context = certificate(secrets) if tls else None
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    names = {"port": "server", "management-port": "server management", "metrics-port": "petclf", "ready-port": "supervisor"}
    serve = [
        sys.executable,
        "-m",
        "scripts.serve",
        f"--ready-seconds={START_SECONDS}",
        *(f"--{option}={ports[name]}" for option, name in names.items()),
    ]
    settings = {"PETCLF_PREDICTION_LOG": str(folder / "predictions.jsonl"), "PETCLF_URL_HOSTS": url_hosts}
    server = Restarted(folder / "serve.log", serve, settings)
    start_gateway = [str(ROOT / "deploy" / "gateway" / "start")]
    with contextlib.ExitStack() as stack:
        stack.enter_context(server.running())
        front = stack.enter_context(
            process(folder / "gateway.log", start_gateway, {**gateway_settings(folder, ports), **gateway})
        )
        started = Stack(ports["api"], ports["management"], ports["server management"], server, known, context, None)
        asked = started.good_client(1)
        wait_until(lambda: asked.status(asked.connect()) == "200", front, folder / "gateway.log", server.log)
        yield stack.enter_context(watch(folder, started, ports)) if watched else started


def gateway_settings(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "GATEWAY_WORK": str(folder / "gateway"), "GATEWAY_SECRETS": str(folder / "secrets"), "GATEWAY_LISTEN": "127.0.0.1",
        "GATEWAY_PORT": str(ports["api"]), "GATEWAY_MANAGEMENT_PORT": str(ports["management"]),
        "GATEWAY_METRICS": f"127.0.0.1:{ports['gateway']}", "GATEWAY_LOG": str(folder / "access.log"),
        "GATEWAY_USER": "root" if os.getuid() == 0 else "", "PREDICTION_LOG": str(folder / "predictions.jsonl"),
        "PETCLF_SERVER": "127.0.0.1", "PETCLF_INFERENCE_PORT": str(ports["server"]),
        "PETCLF_MANAGEMENT_PORT": str(ports["server management"]), "PETCLF_READY_PORT": str(ports["supervisor"]), "PATH": PATH,
    }  # fmt: skip


@contextlib.contextmanager
def watch(folder: Path, stack: Stack, ports: Mapping[str, int]) -> Iterator[Stack]:
    """Start the probe, where there is one, and Prometheus; a job has the name of the port that it reads."""
    jobs = ["petclf", "supervisor", "gateway"]
    with contextlib.ExitStack() as started:
        if (ROOT / "serving" / "probe.py").exists():
            jobs.append("probe")
            started.enter_context(start_probe(folder, stack, ports["probe"]))
        yield replace(stack, prometheus=started.enter_context(start_prometheus(folder, {job: ports[job] for job in jobs})))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that no client gets as its own while a server starts again."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 12_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("error: no free ports from 20000 to 32000")


def password_file(name: str) -> str:
    return "management.htpasswd" if name == "operator" else "predictions.htpasswd"


def certificate(secrets: Path) -> ssl.SSLContext:
    """Make a certificate for 127.0.0.1 that signs itself; return settings that trust it."""
    require_program("openssl", "Debian: apt-get install openssl")
    files = ["-keyout", str(secrets / "tls.key"), "-out", str(secrets / "tls.crt")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", *kind, *name, *files], check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(secrets / "tls.crt"))


def start_probe(folder: Path, stack: Stack, port: int) -> contextlib.AbstractContextManager[Any]:
    scheme = "https" if stack.tls else "http"
    settings = {"PETCLF_PROBE_URL": f"{scheme}://127.0.0.1:{stack.port}", "PETCLF_PROBE_LISTEN": f"127.0.0.1:{port}"}
    if stack.tls:
        settings["PETCLF_PROBE_CA"] = str(folder / "secrets" / "tls.crt")
    if "probe" in stack.keys:
        settings["PETCLF_API_KEY"] = stack.keys["probe"]
    return process(folder / "probe.log", [sys.executable, "-m", "serving.probe"], settings)


@contextlib.contextmanager
def start_prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus | None]:
    """Start one with the shipped configuration, but for where the jobs are found; none where it is not installed."""
    program = shutil.which("prometheus", path=PATH)
    if program is None:
        yield None
        return
    config = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    for job in jobs:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    config |= {"scrape_configs": jobs, "rule_files": [str(CONFIGURATION / name) for name in config["rule_files"]], "alerting": {}}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    [port] = free_ports(1)
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    with process(folder / "prometheus.log", [program, *options], {}) as started:
        wait_until(
            lambda: len(prometheus.ask("query", query="up == 1")["result"]) == len(jobs), started, folder / "prometheus.log"
        )
        yield prometheus


@contextlib.contextmanager
def process(log: Path, command: list[str], settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that ends with us, also where we are killed."""
    started = start(log, command, settings)
    try:
        yield started
    finally:
        end(started)


def start(log: Path, command: list[str], settings: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **settings}
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, preexec_fn=die_with_parent)


def end(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


@dataclass
class Restarted:
    """A program that is started again whenever it ends, as Docker does with `restart: unless-stopped`."""

    log: Path
    command: list[str]
    settings: dict[str, str]
    restarts: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.process = start(self.log, self.command, self.settings)
        keeper = threading.Thread(target=self.keep)
        keeper.start()
        try:
            yield
        finally:
            self.over.set()
            keeper.join()
            end(self.process)

    def keep(self) -> None:
        while not self.over.wait(0.2):
            if self.process.poll() is not None:
                self.restarts += 1
                self.process = start(self.log, self.command, self.settings)


def wait_until(condition: Callable[[], bool], needed: subprocess.Popen[bytes], *logs: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and needed.poll() is None:
        with contextlib.suppress(OSError):  # it does not listen yet
            if condition():
                return
        time.sleep(0.2)
    words = [
        f"{log.name}: {line}" for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-2:]
    ]
    raise SystemExit("\n".join(["error: what is to be attacked did not come up; the last words of its logs:", *words]))


def require_program(name: str, how: str) -> None:
    if shutil.which(name, path=PATH) is None:
        raise SystemExit(f"error: {name} is not installed; {how}")
