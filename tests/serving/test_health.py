"""The one idea of health: a state for every combination of versions and workers, and the same for Prometheus."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.health import HELP, STATES, Health
from serving.management import Version


def version(ready: int, wanted: int = 2, name: str = "1.0.0", live: bool = True, queued: int = 0) -> Version:
    workers = {pid: pid <= ready for pid in range(1, max(wanted, ready) + 1)}
    return Version("petclf", name, "petclf.mar", live, wanted, workers, queued)


@pytest.mark.parametrize(
    ("phase", "versions", "state"),
    [
        ("starting", [], "starting"),
        ("starting", [version(2)], "starting"),
        ("serving", [version(2)], "ready"),
        ("serving", [version(3)], "ready"),
        ("serving", [version(1)], "degraded"),
        ("serving", [version(0)], "down"),
        ("serving", [version(0, wanted=0)], "down"),
        ("serving", [], "down"),
        ("serving", [version(2), version(0, name="2.0.0", live=False)], "ready"),
        ("serving", [version(0), version(2, name="2.0.0", live=False)], "down"),
        ("draining", [version(2)], "draining"),
    ],
)
def test_every_combination_has_its_state(phase: str, versions: list[Version], state: str, tmp_path: Path) -> None:
    health = Health(phase, versions, {}, tmp_path)
    assert health.state == state
    shown = {sample.labels["state"]: sample.value for sample in samples(health) if sample.name == "petclf_server_state"}
    assert shown == {name: float(name == state) for name in STATES}


def samples(health: Health) -> list[Any]:
    return [sample for family in text_string_to_metric_families(health.metrics()) for sample in family.samples]


def test_prometheus_is_told_of_every_version_and_which_one_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETCLF_PREDICTION_LOG", str(tmp_path / "predictions.jsonl"))
    versions = [version(1, queued=7), version(0, 1, 'odd"name', live=False)]
    text = Health("serving", versions, {"petclf 1.0.0": "abcdef0123456789"}, tmp_path).metrics()

    assert [line for line in text.splitlines() if not line.startswith(("#", "petclf_server_state", "petclf_disk"))] == [
        'petclf_workers_ready{model="petclf",version="1.0.0"} 1',
        'petclf_workers_ready{model="petclf",version="odd\\"name"} 0',
        'petclf_workers_wanted{model="petclf",version="1.0.0"} 2',
        'petclf_workers_wanted{model="petclf",version="odd\\"name"} 1',
        'petclf_queue_depth{model="petclf",version="1.0.0"} 7',
        'petclf_queue_depth{model="petclf",version="odd\\"name"} 0',
        'petclf_version_live{model="petclf",version="1.0.0",archive="abcdef012345"} 1',
    ]
    families = {family.name: (family.documentation, family.type) for family in text_string_to_metric_families(text)}
    assert families == {name: (words, "gauge") for name, words in HELP.items()}


def test_a_disk_is_shown_for_the_log_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def paths() -> list[str]:
        text = Health("serving", [], {}, tmp_path).metrics()
        return [line.split('"')[1] for line in text.splitlines() if line.startswith("petclf_disk_free_ratio{")]

    monkeypatch.setenv("PETCLF_PREDICTION_LOG", "stdout")
    assert paths() == ["temp"]
    monkeypatch.setenv("PETCLF_PREDICTION_LOG", str(tmp_path / "log"))
    assert sorted(paths()) == ["log", "temp"]
