"""What the comparison says of figures that are known."""

import json
from pathlib import Path
from typing import Any

from benchmarks.compare import groups
from benchmarks.report import against_record, as_list, median, ratios, tables
from benchmarks.systems import SYSTEMS


def cell(number: int, system: str, connections: int, rate: float) -> dict[str, Any]:
    answered = {"p50": 10.0, "p95": 15.0, "p99": 20.0}
    return {
        "round": number, "system": system, "connections": connections, "rate": rate, "answered_ms": answered, "refused_ms": {},
        "statuses": {"200": 9, "503": 1}, "cpu_ms": 3.0,
    }  # fmt: skip


def at_a_rate(number: int, system: str, share: float, capacity: float, rate: float, **more: Any) -> dict[str, Any]:
    return {
        "round": number,
        "system": system,
        "share": share,
        "capacity": capacity,
        "rate": rate,
        "kept": rate / capacity,
        **more,
    }


def a_round(number: int, speed: float) -> list[dict[str, Any]]:
    """Return what all would give on a machine of this speed."""
    answers = {"answered_ms": {"p50": 3.0, "p99": 10.0}, "statuses": {"200": 5}}
    return [
        {"round": number, "system": "ceiling", "batch": 8, "rate": 800 * speed, "photo_ms": 2.5 / speed},
        {"round": number, "system": "ceiling", "batch": 1, "rate": 500 * speed, "photo_ms": 4 / speed},
        at_a_rate(number, "ceiling", 0.8, 800 * speed, 640 * speed, batch=8, **answers),
        *(cell(number, name, count, rate * speed) for name, rate in (("petclf", 640), ("FastAPI 2 processes", 400), ("Flask gunicorn", 320)) for count in (1, 8, 32, 64)),
        *(cell(number, "TorchServe stock", count, 32 * speed) for count in (1, 8, 32, 64)),
        at_a_rate(number, "petclf", 0.8, 640 * speed, 512 * speed, refused_ms={}, clients_cpu=0.06, answered_ms={"p50": 6.0, "p99": 20.0}, statuses={"200": 5}),
        at_a_rate(number, "petclf", 1.5, 640 * speed, 576 * speed, clients_cpu=0.1, answered_ms={"p50": 1.0, "p99": 2.0}, refused_ms={"p99": 7.0}, statuses={"200": 5, "503": 3}),
        {"round": number, "system": "petclf", "idle": 0.02 * speed},
    ]  # fmt: skip


CELLS = [
    {"round": 0, "system": "petclf", "start_seconds": 2.0, "memory": 5e8},
    *(entry for number, speed in enumerate((0.5, 1.0, 1.25)) for entry in a_round(number, speed)),
]


def test_petclf_is_asked_in_turns_with_each_of_the_others() -> None:
    assert [[system.name for system in group] for group in groups(SYSTEMS)][:3] == [
        ["petclf", "petclf with gateway", "FastAPI 2 processes"],
        ["petclf", "TorchServe stock"],
        ["petclf", "FastAPI 1 process"],
    ]


def test_a_figure_is_the_median_of_its_rounds() -> None:
    assert median(CELLS, "rate", system="petclf", connections=32) == 640
    assert median(CELLS, "answered_ms.p50", system="petclf", connections=1) == 10
    assert median(CELLS, "rate", system="nobody") is None


def test_ratios_are_of_one_round_each_so_that_a_machine_that_changes_its_speed_changes_none() -> None:
    found = ratios(CELLS)
    assert found["ceiling at 32"] == [0.8, 0.8, 0.8]
    assert found["against FastAPI 2 processes at 32"] == [1.6, 1.6, 1.6]
    assert found["against TorchServe stock at 32"] == [20, 20, 20]
    assert found["petclf: answered at 150 %, of capacity"] == [0.9, 0.9, 0.9]
    assert found["petclf: p99 at 80 %, of one photo in process"] == [2.5, 5, 6.25]
    assert found["petclf: p99 at 80 %, of the least possible"] == [2, 2, 2]
    assert "with gateway at 32" not in found


def test_a_ratio_is_shown_with_its_least_and_its_most() -> None:
    assert as_list({"ceiling at 32": [0.9, 0.8, 0.84]}) == ["- ceiling at 32: 0.84 [0.80-0.90]"]


def test_what_became_a_tenth_slower_than_the_last_record_is_warned_of(tmp_path: Path) -> None:
    for name, ratio in (("2026-01-01_peers", 0.1), ("2026-01-02_peers", 1.0), ("2026-01-03_other", 9.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"ratios": {"a": ratio, "b": ratio}}), encoding="utf-8")
    said = against_record({"a": [0.8, 0.95, 1.0], "b": [0.89], "c": [1.0]}, tmp_path)
    assert said == ["ok: a: 0.95, recorded 1.00", "warning: b: 0.89, recorded 1.00"]


def test_of_a_waiting_time_more_is_worse(tmp_path: Path) -> None:
    (tmp_path / "2026-01-01_peers.json").write_text(json.dumps({"ratios": {"a: p99": 2.0, "b: p99": 2.0}}), encoding="utf-8")
    said = against_record({"a: p99": [1.0], "b: p99": [2.3]}, tmp_path)
    assert said == ["ok: a: p99: 1.00, recorded 2.00", "warning: b: p99: 2.30, recorded 2.00"]


def test_the_tables_show_every_system_and_what_was_refused() -> None:
    text = "\n".join(tables(CELLS))
    assert "| petclf | 640 [320-800] (10.0 / 20) | 640 [320-800] (10.0 / 20) | 640 [320-800] (10.0 / 20) |" in text
    assert "| ceiling, 80% | 640 | 640 | 0.80 | 3.0 / 10 |  |  |  |" in text
    assert "| petclf, 150% | 960 | 576 | 0.90 | 1.0 / 2 | 7 | 10 | 503: 9 |" in text
    assert "| petclf | 2.0 | 500 | 3.00 / 3.00 | 2.0 | 0.033 | 12 |" in text
