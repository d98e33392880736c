"""What is measured of a server becomes a queue that answers as it did."""

import json
from datetime import datetime, timezone
from typing import Any

import pytest

pytest.importorskip("simpy", reason="simpy is not installed; `make setup` installs it")

from benchmarks import scaling
from benchmarks.queueing import Server, simulate
from benchmarks.scaling import Batch, Measurement, Pace, Passing

START = datetime(2026, 11, 27, tzinfo=timezone.utc).timestamp()


def line(second: float, decode: float, model: float) -> str:
    moment = datetime.fromtimestamp(START + second, timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": moment, "milliseconds": {"decode": decode, "model": model}})


def test_lines_of_the_prediction_log_with_the_same_time_are_one_batch() -> None:
    batches = scaling.read_batches([line(2, 3, 4), line(1, 2, 5), line(1, 3, 5)], START)

    assert batches == [Batch(1.0, 2, 0.015), Batch(2.0, 1, 0.007)]


def test_a_batch_is_as_slow_as_the_machine_was_at_that_moment() -> None:
    """Batches take 2 ms and 5 ms a photo; for one second everything takes twice as long."""
    usual = [Batch(number / 10, size, 0.002 + 0.005 * size) for number in range(1, 40) for size in (1, 2, 4, 8)]
    slow = [Batch(4 + (number + 1) * 0.084, 8, 0.084) for number in range(12)]
    pace = Pace.of([*usual, *slow])

    assert pace.seconds(4, 0.5) == pytest.approx(0.022, rel=0.01)
    assert pace.seconds(4, 4.5) == pytest.approx(0.044, rel=0.01)
    assert pace.seconds(8, 4 + 12 * 0.084 - 0.042) == pytest.approx(0.042 + 0.021, rel=0.01)
    assert pace.seconds(4, 9.0) == pytest.approx(0.022, rel=0.01)
    assert pace.seconds(4, -1.0) == pytest.approx(0.022, rel=0.01)


def test_one_size_of_batches_tells_nothing_of_what_a_batch_costs_whatever_is_in_it() -> None:
    pace = Pace.of([Batch(1.0, 8, 0.040)] * 3)

    assert (pace.batch, pace.photo) == (0.0, pytest.approx(0.005))


def cell(batches: list[Batch], answered: list[float], seconds: float = 1.0, queued: float = 0.0) -> dict[str, Any]:
    return {
        "rate": len(answered) / seconds, "statuses": {"200": len(answered)}, "seconds": seconds, "queue_seconds": queued,
        "cpu_seconds": {"front": 0.001 * len(answered), "workers": 0.006 * len(answered), "client": 0.0}, "others": 0.1,
        "batches": batches, "answered": answered,
    }  # fmt: skip


# over one connection 9 ms a request: 4 in the handler, 1.5 in the queue, 1 between TorchServe and worker, 2.5 elsewhere
ONE = cell([Batch(second, 1, 0.004) for second in range(100)], [0.009] * 100, queued=0.150)
# over 32 connections two workers without a pause: in a second 2 * 25 batches of 8 that take 32 ms, and 8 more for passing them on
MANY = cell([Batch(number / 50, 8, 0.032) for number in range(50)], [0.080] * 400)


def test_what_passing_a_photo_on_takes_is_what_the_handler_does_not_explain() -> None:
    passing = Passing.of(ONE, MANY)

    assert vars(passing) == {"delay": pytest.approx(0.0015), "photo": pytest.approx(0.001), "front": pytest.approx(0.0025)}


class Simulated(Measurement):
    """A server that is a queue."""

    def __init__(self) -> None:
        self.server_itself = Server(lambda photos, _: 0.005 * photos, front=0.0025, delay=0.0015)
        self.turns = [ONE, MANY]

    def turn(self, ask: Any) -> dict[str, Any]:
        return self.turns.pop(0) if self.turns else ask(self)

    def scheduled(self, dues: list[float]) -> dict[str, Any]:
        result = simulate(self.server_itself, dues)
        batches = [Batch(number / 50, size, 0.004 * size) for number, size in enumerate(result.batches)]
        return {**cell(batches, result.answered), "rate": result.in_time / dues[-1]}


def test_a_server_that_is_such_a_queue_is_reproduced_at_every_load() -> None:
    cells = Simulated().round(0, (0.5, 0.8, 1.5), 5)

    for one in cells[2:]:
        for pace in ("paced", "blind"):
            assert [one[pace][name] / one[name] for name in scaling.FIGURES] == pytest.approx([1, 1, 1], abs=0.02)
    assert scaling.comparison(cells, "paced")[2:] == [
        f"| {load} of capacity | 1 | 1.00 [1.00-1.00] | 1.00 [1.00-1.00] | 1.00 [1.00-1.00] |" for load in ("50%", "80%", "150%")
    ]


def test_a_median_beyond_the_limit_is_marked() -> None:
    cells = [{"share": 0.5, "rate": 100, "p50": 10, "p99": 50, "paced": {"rate": 100, "p50": 8, "p99": 57}}]

    assert scaling.comparison(cells, "paced")[2:] == [
        "| 50% of capacity | 1 | 1.00 [1.00-1.00] | 0.80 [0.80-0.80] (no) | 1.14 [1.14-1.14] |"
    ]


def test_predictions_get_the_round_beside_which_others_did_least() -> None:
    busy = [{**one, "others": 1.5} for one in Simulated().round(0, (0.5, 0.8), 1)]
    idle = Simulated().round(1, (0.5, 0.8), 1)
    server = scaling.quietest([*busy, *idle])

    assert server.pop("slowness") == pytest.approx([1.0] * scaling.QUANTILES)
    assert server == {
        "batch": pytest.approx(0, abs=1e-9), "photo": pytest.approx(0.004), "delay": pytest.approx(0.0015),
        "passing": pytest.approx(0.001), "front": pytest.approx(0.0025), "cpu_batch": 0.0, "cpu_photo": pytest.approx(0.007),
        "cores": 2,
    }  # fmt: skip


def test_the_record_tells_both_ways_of_simulating() -> None:
    lines = scaling.report(Simulated().round(0, (0.5,), 1))

    assert [one for one in lines if one.startswith("## ")] == [
        "## Measured",
        "## Simulated / measured: the machine as slow as at that moment of the measurement",
        "## Simulated / measured: the machine as slow as over 1 and 32 connections in the same round",
    ]


def test_no_rounds_are_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["--rounds", "0"])

    assert "--rounds, --seconds and --shares must be above 0" in capsys.readouterr().err
