"""Metrics as TorchServe's frontend reads them from a worker's standard output."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from handler.recent import Recent
from handler.telemetry import Telemetry


class Metrics:
    """What TorchServe knows from metrics.yaml."""

    def get_metric(self, name: str, _kind: object) -> SimpleNamespace:
        labels = {"petclf_seconds": ["Stage", "Outcome"], "petclf_predictions": ["Label", "Unsure"]}.get(name, [])
        return SimpleNamespace(unit="Count", dimension_names=[*labels, "Version"])


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    return Telemetry(Metrics(), "1.0.0", "abc", Recent(tmp_path / "recent.ring", ["cat", "dog"]), {})


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r"\|#hostname:.*", "", line) for line in capsys.readouterr().out.splitlines()]


def test_counts_are_added_up_and_every_observation_has_its_line(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in (0.25, 0.00001):
        telemetry.count("petclf_predictions", "cat", "no", by=2)
        telemetry.observe(("petclf_seconds", seconds, ("total", "answered")), ("petclf_batch_photos", 2, ()))
    assert lines(capsys) == []

    telemetry.flush()

    assert lines(capsys) == [
        "[METRICS]petclf_predictions.Count:4|#Label:cat,Unsure:no,Version:1.0.0|#type:COUNTER",
        "[METRICS]petclf_seconds.Count:0.25|#Stage:total,Outcome:answered,Version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_batch_photos.Count:2|#Version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_seconds.Count:0.00001|#Stage:total,Outcome:answered,Version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_batch_photos.Count:2|#Version:1.0.0|#type:HISTOGRAM",
    ]


def test_nothing_is_handed_on_twice_and_nothing_written_where_nothing_happened(
    telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.observe(("petclf_batch_photos", 1, ()))
    telemetry.flush()
    assert len(lines(capsys)) == 1

    telemetry.flush()

    assert capsys.readouterr().out == ""


def test_a_label_cannot_break_the_line_it_stands_in(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.count("petclf_predictions", "cat|#x:1,\n", "no")

    telemetry.flush()

    [line] = lines(capsys)
    assert line == "[METRICS]petclf_predictions.Count:1|#Label:cat__x_1__,Unsure:no,Version:1.0.0|#type:COUNTER"
