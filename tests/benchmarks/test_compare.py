"""What the comparison says of figures that are known."""

from typing import Any

from benchmarks.compare import median, ratios, tables


def cell(system: str, connections: int, rate: float) -> dict[str, Any]:
    answered = {"p50": 10.0, "p95": 15.0, "p99": 20.0}
    return {
        "system": system, "connections": connections, "rate": rate, "answered_ms": answered, "refused_ms": {}, "statuses": {"200": 9, "503": 1},
        "start_seconds": 2.0, "memory": 5e8, "cpu_ms": 3.0,
    }  # fmt: skip


CELLS = [
    {"system": "ceiling", "batch": 8, "rate": 800.0},
    {"system": "ceiling", "batch": 1, "rate": 600.0},
    {"system": "ceiling", "batch": 8, "share": 0.8, "capacity": 800.0, "rate": 640.0, "answered_ms": {"p50": 3.0, "p99": 9.0}, "statuses": {"200": 5}},
    *(cell(name, count, rate) for name, rate in (("petclf", 640), ("FastAPI 2 processes", 400), ("Flask gunicorn", 320)) for count in (1, 8, 32, 64)),
    cell("petclf", 32, 660.0),
    cell("petclf", 32, 600.0),
    *(cell("TorchServe stock", count, 32.0) for count in (1, 8, 32, 64)),
    {"system": "petclf", "share": 1.5, "capacity": 640.0, "rate": 576.0, "answered_ms": {"p50": 1.0, "p99": 2.0}, "refused_ms": {"p99": 7.0}, "statuses": {"200": 5, "503": 3}},
]  # fmt: skip


def test_a_figure_is_the_median_of_its_rounds() -> None:
    assert median(CELLS, "rate", system="petclf", connections=32) == 640
    assert median(CELLS, "answered_ms.p50", system="petclf", connections=1) == 10
    assert median(CELLS, "rate", system="nobody") is None


def test_ratios_are_against_the_best_of_the_others() -> None:
    found = ratios(CELLS)
    assert found["ceiling at 32"] == 0.8
    assert found["against FastAPI 2 processes at 32"] == 1.6
    assert found["against TorchServe stock at 32"] == 20
    assert "with gateway at 32" not in found


def test_the_tables_show_every_system_and_what_was_refused() -> None:
    text = "\n".join(tables(CELLS))
    assert "| petclf | 640 [640-640] (10.0 / 20) | 640 [640-640] (10.0 / 20) | 640 [600-660] (10.0 / 20) |" in text
    assert "| ceiling, 80% | 640 | 640 | 0.80 | 3.0 / 9 |  |  |" in text
    assert "| petclf, 150% | 960 | 576 | 0.90 | 1.0 / 2 | 7 | 503: 3 |" in text
    assert "| Flask gunicorn | 2.0 | 500 | 3.00 / 3.00 | 0.033 | 4 |" in text
