"""Rules, alerts and dashboard speak of metrics that exist, and every alert is tested and has its page in the runbook."""

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
    """Every query that anybody of ours sends to Prometheus."""
    return [rule["expr"] for rule in RULES] + [target["expr"] for panel in panels() for target in panel["targets"]]


def names_in(query: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\b\d[\d.e-]*|\b(?:by|on|ignoring|group_left) ?\([^)]*\)", " ", query)
    return {name for name in re.findall(r"[A-Za-z_][\w:]*", bare) if name not in WORDS}


def declared() -> set[str]:
    content = yaml.safe_load((ROOT / "metrics.yaml").read_text())
    names = set()
    for part in ("ts_metrics", "model_metrics"):
        for kind, items in content[part].items():
            for item in items:
                endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
                names |= {item["name"] + ending for ending in endings}
    return names


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_name_in_a_query_is_a_metric_a_rule_or_prometheus_own(query: str) -> None:
    assert names_in(query) - declared() - set(RECORDED) - {"up"} == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_its_page_and_its_tests(alert: str) -> None:
    [rule] = [rule for rule in RULES if rule.get("alert") == alert]
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    tests = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"] if check["alertname"] == alert]
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
    run("promtool", "test", "rules", "deploy/prometheus/tests/rules.yml", "deploy/prometheus/tests/alerts.yml")


def test_alertmanager_takes_its_configuration() -> None:
    run("amtool", "check-config", "deploy/alertmanager/alertmanager.yml")


def test_no_panel_is_drawn_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
