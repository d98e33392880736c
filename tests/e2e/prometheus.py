"""A real Prometheus with the shipped configuration, reading servers that the tests started."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.e2e.conftest import ROOT, Serving, free_port, wait_until
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, Gateway, Upstream, in_front_of

SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus that has read all its targets."""

    url: str
    begun: float = 0.0

    def query(self, query: str) -> list[dict[str, Any]]:
        response = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert response["status"] == "success", response
        found: list[dict[str, Any]] = response["data"]["result"]
        return found

    def firing(self) -> set[str]:
        alerts = requests.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def fired(self) -> set[str]:
        """Return what fired at any evaluation since this Prometheus began to watch, whether a test looked or not."""
        seconds = int(time.monotonic() - self.begun)
        found = self.query(f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{max(1, seconds)}s]))')
        return {one["metric"]["alertname"] for one in found}


def faster(rules: str, times: int) -> str:
    """Divide every duration by `times`: ranges ([5m]), offsets (offset 10m) and how long an alert waits (for: 2m)."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * SECONDS[found[3]] * 1000 // times}ms"

    return re.sub(r"(\[|offset |for: )(\d+)([smh])\b", shorter, rules)


@contextlib.contextmanager
def run_probe(url: str, server: Serving, seconds: float) -> Iterator[int]:
    """Let the real probe ask an address of a server so often; returns the port of its metrics."""
    port = free_port()
    settings = {
        "PETCLF_PROBE_URL": url,
        "PETCLF_PROBE_ARCHIVE": str(server.store / "petclf.mar"),
        "PETCLF_PROBE_LISTEN": f"127.0.0.1:{port}",
        "PETCLF_PROBE_SECONDS": str(seconds),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.probe"], cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def run_gateway(folder: Path, upstream: Upstream, **settings: str) -> Iterator[tuple[Gateway, int]]:
    """Run the shipped gateway in front of a server, or of what stands there; returns the port of its metrics, too."""
    if NGINX is None:
        pytest.skip(HOW_TO_GET_NGINX)
    folder.mkdir(parents=True)
    port = free_port()
    with in_front_of(upstream, folder, None, GATEWAY_METRICS=f"127.0.0.1:{port}", **settings) as gateway:
        yield gateway, port


def behind(server: Serving) -> dict[str, str]:
    """Return the settings of a gateway in front of this server."""
    ports = {"INFERENCE": server.port, "MANAGEMENT": server.management_port, "READY": server.ready_port}
    return {f"PETCLF_{name}_PORT": str(port) for name, port in ports.items()}


@contextlib.contextmanager
def run_prometheus(
    folder: Path, servers: Sequence[Serving], interval: str, times: int = 1, **others: int
) -> Iterator[Prometheus]:
    """Start one that scrapes and evaluates at this interval; `others` are ports of further jobs, of which a laptop has none."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus here; Debian: apt-get install prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    for name in ("rules.yml", "alerts.yml"):
        (folder / name).write_text(
            faster((ROOT / "deploy" / "prometheus" / name).read_text(encoding="utf-8"), times), encoding="utf-8"
        )
    targets = {
        "petclf": [f"127.0.0.1:{server.metrics_port}" for server in servers],
        "supervisor": [f"127.0.0.1:{server.ready_port}" for server in servers],
        "prometheus": [f"127.0.0.1:{port}"],
        **{job: [f"127.0.0.1:{other}"] for job, other in others.items()},
    }
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [
        {**job, "static_configs": [{"targets": targets[job["job_name"]]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": config["rule_files"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    process = subprocess.Popen(
        [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: has_read(prometheus, sum(map(len, targets.values()))), 30)
        wait_until(lambda: not prometheus.firing(), 30)  # before its first scrape, everything is missing
        yield dataclasses.replace(prometheus, begun=time.monotonic())
    finally:
        process.terminate()
        process.wait(10)


def has_read(prometheus: Prometheus, targets: int) -> bool:
    with contextlib.suppress(requests.RequestException):  # it does not listen yet, or answers that it is not ready
        return len(prometheus.query("up == 1")) == targets
    return False
