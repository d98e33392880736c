"""The simulated autoscaler does what Kubernetes documents of its own."""

import json
from pathlib import Path

import pytest

pytest.importorskip("simpy", reason="simpy is not installed; `make setup` installs it")

from benchmarks import autoscaling
from benchmarks.autoscaling import Autoscaler, Cluster, Measured, Replica

LOADS = [0.0, 1.0, 5.0]
# its CPU is its load, and at most 1
REPLICA = Replica(200.0, LOADS, [10, 50, 400], [20, 100, 500], [0, 1, 1], [0, 10, 100], [0, 40, 390], [0, 1, 1])
CPU = Autoscaler("cpu", 0.5, start=30)
MEASURED = {
    "batch": 0.002, "photo": 0.005, "slowness": [0.9, 1.0, 1.1], "delay": 0.001, "passing": 0.001, "front": 0.002,
    "cpu_batch": 0.002, "cpu_photo": 0.006, "cores": 2,
}  # fmt: skip


def test_replicas_that_are_just_right_stay_as_they_are() -> None:
    course = Cluster(REPLICA, CPU, lambda _: 5.0, 10).run(1800)

    assert set(course.ready) == {10}
    assert course.p99 == pytest.approx([60] * 1800)
    assert set(course.refused) == {0.0}


@pytest.mark.parametrize("load", [4.6, 5.4])
def test_a_tenth_more_or_less_changes_nothing(load: float) -> None:
    assert set(Cluster(REPLICA, CPU, lambda _: load, 10).run(1800).ready) == {10}


def test_a_crowd_is_refused_in_part_until_new_replicas_are_ready() -> None:
    """The metric is 15 to 30 s old, replicas start in 30 s, and CPU that is used up says no more than "twice as many"."""
    course = Cluster(REPLICA, CPU, lambda now: 5.0 if now < 60 else 20.0, 10).run(600)

    assert course.refused[59] == 0
    assert course.refused[60] == pytest.approx(0.5)
    assert next(second for second, ready in enumerate(course.ready) if ready > 10) in range(60 + 15 + 30, 60 + 45 + 31)
    assert course.ready[-1] >= 40
    assert course.refused[-1] == 0


def test_within_fifteen_seconds_replicas_are_doubled_at_most_or_become_four_more() -> None:
    inside = Autoscaler("inside", 0.1)
    wanted = Cluster(REPLICA, inside, lambda _: 50.0, 2).run(120).wanted

    assert list(dict.fromkeys(wanted))[:4] == [2, 6, 12, 24]


def test_replicas_go_when_five_minutes_have_wanted_fewer() -> None:
    course = Cluster(REPLICA, CPU, lambda now: 5.0 if now < 600 else 1.0, 10).run(1800)
    gone = next(second for second, ready in enumerate(course.ready) if ready < 10)

    assert 600 + 300 <= gone <= 600 + 300 + 60
    assert course.ready[-1] == 2


def test_replicas_that_are_starting_count_as_idle() -> None:
    """10 at full load want 20; as long as the 10 new ones start, no more are wanted for them."""
    course = Cluster(REPLICA, Autoscaler("cpu", 0.5, start=200), lambda _: 10.0, 10).run(200)

    assert set(course.wanted) == {10, 20}


def test_the_most_is_the_most_and_the_least_the_least() -> None:
    limited = Autoscaler("cpu", 0.5, least=4, most=12)

    assert max(Cluster(REPLICA, limited, lambda _: 50.0, 10).run(600).ready) == 12
    assert min(Cluster(REPLICA, limited, lambda _: 0.1, 10).run(1800).ready) == 4


def test_a_day_needs_fewer_replica_hours_than_the_peak_all_day() -> None:
    found = autoscaling.predict(REPLICA, "day", 10, CPU).summary()

    assert found["most"] in (9, 10, 11)
    assert 24 * 10 * 0.6 < found["hours"] < 24 * 10 * 0.75
    assert found["refused"] == 0


def test_one_replica_is_the_measured_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A batch of 8 takes 50 ms, so two workers answer 320 a second; a batch costs 50 ms of CPU, too."""
    monkeypatch.setattr(autoscaling, "REQUESTS", 3000)
    monkeypatch.setattr(autoscaling, "LOADS", (0.05, 0.5, 2.0))
    (tmp_path / "x.json").write_text(json.dumps({"server": MEASURED}), encoding="utf-8")
    replica = Replica.of(Measured.read(tmp_path / "x.json"))

    assert replica.capacity == pytest.approx(320, rel=0.05)
    assert replica.kept == pytest.approx([0.05, 0.5, 1.0], rel=0.07)
    assert replica.inside[2] == pytest.approx(100, rel=0.1)
    assert replica.cpu[2] == pytest.approx(1.0, abs=0.05)
    assert replica.at("p99", 0.5) == replica.p99[1]


def test_a_file_that_is_no_record_is_a_wrong_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")

    with pytest.raises(SystemExit, match="2"):
        autoscaling.main(["--measured", str(tmp_path / "x.json")])

    assert "is no record of benchmarks.scaling" in capsys.readouterr().err


def test_the_tables_have_a_row_for_every_load_and_every_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "SCENARIOS", {"flash crowd": (autoscaling.flash_crowd, 60)})
    lines = autoscaling.predictions(REPLICA, [10])

    assert len(autoscaling.curve(REPLICA)) == 2 + len(LOADS)
    assert len(lines) == 2 + len(autoscaling.AUTOSCALERS) + len(autoscaling.STARTS) - 1
    assert lines[2] == "| flash crowd | 10 | CPU 50% | 30 s | 0.00% | 0 | 60 | 10 | 0 |"


def test_the_plot_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(autoscaling, "SCENARIOS", {name: (load, 60) for name, (load, _) in autoscaling.SCENARIOS.items()})
    autoscaling.plot(REPLICA, [10, 20], tmp_path / "x.png")

    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
