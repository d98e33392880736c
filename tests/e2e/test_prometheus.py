"""A real Prometheus reads a real server: all queries of rules, alerts and dashboard return values."""

import re
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving
from tests.e2e.nginx import Upstream
from tests.e2e.prometheus import Prometheus, behind, run_gateway, run_probe, run_prometheus
from tests.test_monitoring import DRIFT, GATEWAY, OWN_LABELS, PROBE, RULES, SUPERVISOR, names_in, panels

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# these exist only after a fault, so a healthy run has no value of them
FAULTS = {"petclf_failed_total", "petclf_log_lost_total", "Requests5XX"}


@pytest.fixture(scope="module")
def prometheus(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    stop = threading.Event()
    asking = threading.Thread(target=ask, args=(server, stop))
    with run_gateway(folder / "gateway", Upstream(server.port), **behind(server)) as (gateway, gateway_port):
        with run_probe(gateway.url, server, 5) as probe_port:
            with run_prometheus(folder, [server], "1s", gateway=gateway_port, probe=probe_port) as running:
                asking.start()
                time.sleep(25)  # two values of each counter, and the gauges of every five seconds
                yield running
                stop.set()
                asking.join()


def ask(server: Serving, stop: threading.Event) -> None:
    """Send photos, and every seventh time something else."""
    photos = [encoded(draw_photo(label, seed, (200, 150))) for label in ("cat", "dog", "cross") for seed in range(4)]
    count = 0
    while not stop.wait(0.02):
        server.predict(photos[count % len(photos)] if count % 7 else b"no photo")
        count += 1


def test_every_query_of_the_dashboard_gets_an_answer(prometheus: Prometheus) -> None:
    empty = [
        (panel["title"], target["expr"])
        for panel in panels()
        for target in panel["targets"]
        if not prometheus.query(target["expr"])
    ]
    assert empty == []


def test_every_recording_rule_has_a_value(prometheus: Prometheus) -> None:
    assert [rule["record"] for rule in RULES if "record" in rule and not prometheus.query(rule["record"])] == []


def test_every_metric_that_an_alert_speaks_of_is_there(prometheus: Prometheus) -> None:
    # the drift exporter is not part of the stack; tests/operate/test_drift_watch.py asks it for its metrics
    names = {name for rule in RULES if "alert" in rule for name in names_in(rule["expr"])} - FAULTS - set(DRIFT)
    assert [name for name in names if not prometheus.query(name)] == []


@pytest.mark.parametrize(("job", "declared"), [("supervisor", SUPERVISOR), ("gateway", GATEWAY), ("probe", PROBE)])
def test_each_sends_the_declared_metrics_with_their_labels_and_a_help_text(
    prometheus: Prometheus, job: str, declared: dict[str, set[str]]
) -> None:
    [target] = prometheus.query(f'up{{job="{job}"}}')
    text = requests.get(f"http://{target['metric']['instance']}/metrics", timeout=10).text
    helped = {line.split(" ", 3)[2] for line in text.splitlines() if line.startswith("# HELP ")}
    sent = {name: set(prometheus.query(name)[0]["metric"]) - {"__name__"} - OWN_LABELS for name in declared}
    assert (sent, helped) == (declared, set(declared))


def test_the_help_text_of_a_workers_metric_explains_it(server: Serving) -> None:
    text = requests.get(server.metrics_url, timeout=10).text
    found = re.findall(r"^# HELP petclf_predictions_total (.*)$", text, re.MULTILINE)
    assert found == ["Torchserve prometheus counter metric with unit: photos answered by label and by why they are unsure"]


def test_in_a_healthy_run_no_alert_fires(prometheus: Prometheus) -> None:
    assert prometheus.fired() == set()
