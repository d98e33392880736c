"""A real Prometheus reads the real server, and every query of rules, alerts and dashboard gets an answer."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving, free_port
from tests.test_monitoring import RULES, names_in, panels

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROGRAM = shutil.which("prometheus")
if PROGRAM is None:
    pytest.skip("no Prometheus here; Debian: apt-get install prometheus", allow_module_level=True)

# what only a fault brings about; the queries that name them are asked too, and may be empty
FAULTS = {"petclf_failed", "petclf_log_lost", "Requests5XX"}


@pytest.fixture(scope="module")
def prometheus(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    for name in ("rules.yml", "alerts.yml"):
        text = (ROOT / "deploy" / "prometheus" / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{server.metrics_port}"]}]
    config["scrape_configs"] = [scrape for scrape in config["scrape_configs"] if scrape["job_name"] != "gateway"]  # none here
    config["scrape_configs"][1]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    process = subprocess.Popen(
        [str(PROGRAM), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stop = threading.Event()
    asking = threading.Thread(target=ask, args=(server, stop))
    asking.start()
    time.sleep(25)  # two figures of each counter, and the gauges of every five seconds
    yield f"http://127.0.0.1:{port}"
    stop.set()
    asking.join()
    process.terminate()
    process.wait(10)


def ask(server: Serving, stop: threading.Event) -> None:
    """Keep the server busy with good photos and bad ones."""
    photos = [encoded(draw_photo(label, seed, (200, 150))) for label in ("cat", "dog", "cross") for seed in range(4)]
    count = 0
    while not stop.wait(0.02):
        server.predict(photos[count % len(photos)] if count % 7 else b"no photo")
        count += 1


def answers(prometheus: str, query: str) -> list[object]:
    response = requests.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=10).json()
    assert response["status"] == "success", response
    found: list[object] = response["data"]["result"]
    return found


def test_every_query_of_the_dashboard_gets_an_answer(prometheus: str) -> None:
    empty = [
        (panel["title"], target["expr"])
        for panel in panels()
        for target in panel["targets"]
        if not answers(prometheus, target["expr"])
    ]
    assert empty == []


def test_every_recording_rule_has_a_value(prometheus: str) -> None:
    assert [rule["record"] for rule in RULES if "record" in rule and not answers(prometheus, rule["record"])] == []


def test_every_metric_that_an_alert_speaks_of_is_there(prometheus: str) -> None:
    names = {name for rule in RULES if "alert" in rule for name in names_in(rule["expr"])} - FAULTS
    assert [name for name in names if not answers(prometheus, name)] == []


def test_in_a_healthy_run_no_alert_fires(prometheus: str) -> None:
    response = requests.get(f"{prometheus}/api/v1/alerts", timeout=10).json()
    firing = [alert["labels"]["alertname"] for alert in response["data"]["alerts"] if alert["state"] == "firing"]
    assert firing == []
