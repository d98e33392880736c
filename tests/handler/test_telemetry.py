"""Metrics as TorchServe's frontend reads them from a worker's standard output."""

import re
from types import SimpleNamespace

import pytest

from handler.telemetry import Metric, Telemetry


class Declared:
    """What TorchServe knows from metrics.yaml."""

    def get_metric(self, name: str, _kind: object) -> SimpleNamespace:
        labels = {"petclf_seconds": ["stage", "outcome"], "petclf_predictions_total": ["label", "unsure"]}.get(name, [])
        return SimpleNamespace(unit="Count", dimension_names=[*labels, "version"])


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(Declared(), "1.0.0")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r"\|#hostname:.*", "", line) for line in capsys.readouterr().out.splitlines()]


def test_every_metric_has_its_line_and_its_type(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.write(
        [
            Metric("petclf_predictions_total", 4, ("cat", "no")),
            Metric("petclf_seconds", 0.25, ("total", "answered")),
            Metric("petclf_seconds", 0.00001, ("total", "answered")),
            Metric("petclf_batch_photos", 2),
            Metric("petclf_recent_confidence", 0.5),
        ]
    )

    assert lines(capsys) == [
        "[METRICS]petclf_predictions_total.Count:4|#label:cat,unsure:no,version:1.0.0|#type:COUNTER",
        "[METRICS]petclf_seconds.Count:0.25|#stage:total,outcome:answered,version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_seconds.Count:0.00001|#stage:total,outcome:answered,version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_batch_photos.Count:2|#version:1.0.0|#type:HISTOGRAM",
        "[METRICS]petclf_recent_confidence.Count:0.5|#version:1.0.0|#type:GAUGE",
    ]


def test_nothing_is_written_where_nothing_happened(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.write([])
    assert capsys.readouterr().out == ""


def test_a_label_cannot_break_the_line_it_stands_in(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.write([Metric("petclf_predictions_total", 1, ("cat|#x:1,\n", "no"))])
    [line] = lines(capsys)
    assert line == "[METRICS]petclf_predictions_total.Count:1|#label:cat__x_1__,unsure:no,version:1.0.0|#type:COUNTER"
