"""Rules, alerts and dashboard use metrics that exist; each alert has tests and a section in the runbook."""

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = [
    rule
    for name in ("rules.yml", "alerts.yml")
    for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES if "alert" in rule]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
SUPERVISOR = {  # its metrics and their labels; tests/e2e/test_prometheus.py asks a running one for them
    "petclf_server_state": {"state"},
    "petclf_workers_ready": {"model", "version"},
    "petclf_workers_wanted": {"model", "version"},
    "petclf_queue_depth": {"model", "version"},
    "petclf_version_live": {"model", "version", "archive"},
    "petclf_disk_free_ratio": {"path"},
}
GATEWAY = {  # the same of the gateway
    "petclf_gateway_requests_total": {"server", "status"},
    "petclf_gateway_refused_total": {"reason"},
    "petclf_gateway_connections": {"state"},
    "petclf_gateway_connections_limit": set[str](),
    "petclf_gateway_connections_accepted_total": set[str](),
}
PROBE = {  # and of the probe
    "petclf_probe_success": set[str](),
    "petclf_probe_seconds": set[str](),
    "petclf_probe_total": {"result"},
}
DRIFT = {  # and of scripts.drift --listen
    "petclf_drift_found": {"window"},
    "petclf_drift_since_timestamp_seconds": {"statistic"},
}
OWN_LABELS = {"job", "instance", "le"}  # Prometheus adds these itself
WORDS = {
    "sum",
    "rate",
    "avg",
    "max",
    "min",
    "count",
    "by",
    "on",
    "or",
    "and",
    "unless",
    "ignoring",
    "group_left",
    "histogram_quantile",
    "increase",
    "avg_over_time",
    "max_over_time",
    "quantile_over_time",
    "clamp_min",
    "abs",
    "absent",
    "vector",
    "le",
}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "petclf.json").read_text())["panels"]
    return found


def queries() -> list[str]:
    """Return all queries of the rules, the alerts and the dashboard."""
    return [rule["expr"] for rule in RULES] + [target["expr"] for panel in panels() for target in panel["targets"]]


def names_in(query: str) -> set[str]:
    bare = re.sub(
        r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\boffset \d+[smh]|\b\d[\d.e-]*|\b(?:by|on|ignoring|group_left) ?\([^)]*\)", " ", query
    )
    return {name for name in re.findall(r"[A-Za-z_][\w:]*", bare) if name not in WORDS}


def labels_in(query: str) -> set[str]:
    selectors = re.findall(r"([A-Za-z_]\w*) *(?:=~|!~|!=|=)\s*\"", query)
    clauses = re.findall(r"\b(?:by|on|ignoring|group_left) ?\(([^)]*)\)", query)
    return {*selectors, *(label for clause in clauses for label in re.findall(r"\w+", clause))}


def declared() -> dict[str, set[str]]:
    """Return the labels of each metric that TorchServe, the workers, the supervisor, the gateway, the probe and the drift exporter send."""
    content = yaml.safe_load((ROOT / "metrics.yaml").read_text())
    found = SUPERVISOR | GATEWAY | PROBE | DRIFT
    for part in ("ts_metrics", "model_metrics"):
        for kind, items in content[part].items():
            for item in items:
                endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
                found |= {item["name"] + ending: set(item["dimensions"]) for ending in endings}
    return found


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_name_in_a_query_is_a_metric_or_a_rule_and_every_label_is_a_label_of_one(query: str) -> None:
    metrics = declared()
    assert names_in(query) - set(metrics) - set(RECORDED) - {"up"} == set()
    assert labels_in(query) - set().union(*metrics.values()) - OWN_LABELS == set()


@pytest.mark.parametrize("part", ["ts_metrics", "model_metrics"])
def test_torchserve_can_read_every_unit_and_petclfs_names_follow_prometheus_rules(part: str) -> None:
    content = yaml.safe_load((ROOT / "metrics.yaml").read_text())[part]
    items = [(kind, item) for kind, items in content.items() for item in items]
    assert [item["unit"] for _, item in items if not re.fullmatch(r"[\w ]+", item["unit"])] == []
    ours = [(kind, item) for kind, item in items if item["name"].startswith("petclf_")]
    assert [item["name"] for kind, item in ours if item["name"].endswith("_total") != (kind == "counter")] == []
    assert [item["name"] for _, item in ours if any(label != label.lower() for label in item["dimensions"])] == []


@functools.cache
def rule_tests() -> list[dict[str, Any]]:
    return [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_section_in_the_runbook_and_its_tests(alert: str) -> None:
    [rule] = [rule for rule in RULES if rule.get("alert") == alert]
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    checks = [check for test in rule_tests() for check in test.get("alert_rule_test", []) if check["alertname"] == alert]
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{alert.lower()}"
    assert f"### {alert}\n" in runbook
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {bool(check["exp_alerts"]) for check in checks} == {True, False}  # it fires, and it is silent


def test_every_rule_has_its_test() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests" / "rules.yml").read_text())["tests"]
    assert {check["expr"] for test in tests for check in test["promql_expr_test"]} == set(RECORDED)


def run(tool: str, *arguments: str) -> None:
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"no {tool} here; Debian: apt-get install prometheus prometheus-alertmanager")
    result = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_takes_its_configuration() -> None:
    run("promtool", "check", "config", "deploy/prometheus/prometheus.yml")


def test_every_rule_and_alert_does_what_it_should() -> None:
    assert len(TESTS) == 4
    run("promtool", "test", "rules", *(str(file.relative_to(ROOT)) for file in TESTS))


def test_alertmanager_takes_its_configuration() -> None:
    run("amtool", "check-config", "deploy/alertmanager/alertmanager.yml")


def inhibitions() -> list[tuple[set[str], set[str]]]:
    """Return the alerts that hold back others, and those that they hold back."""
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    return [(matched(rule["source_matchers"]), matched(rule["target_matchers"])) for rule in config["inhibit_rules"]]


def matched(matchers: list[str]) -> set[str]:
    """Return the alerts whose names fit; an anchored expression, as Alertmanager's are."""
    found = set(ALERTS)
    for how, pattern in (parts for text in matchers for parts in re.findall(r'alertname(=~|!~|=|!=)"(.*)"', text)):
        fitting = {alert for alert in ALERTS if re.fullmatch(pattern, alert)}
        assert fitting, f"no alert is called {pattern}"
        found &= fitting if how.startswith("=") else set(ALERTS) - fitting
    return found


def test_no_page_is_held_back_by_a_ticket() -> None:
    pages = {rule["alert"] for rule in RULES if "alert" in rule and rule["labels"]["severity"] == "page"}
    assert [(causes, effects) for causes, effects in inhibitions() if effects & pages and not causes <= pages] == []


def test_that_clients_are_hurt_is_held_back_only_where_the_page_says_why() -> None:
    assert [causes for causes, effects in inhibitions() if "PetclfProbeFailing" in effects] == [{"PetclfNoReadyWorker"}]


def test_no_panel_is_drawn_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
