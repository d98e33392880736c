"""What happened is recorded once, all of it, and by nobody who keeps a client waiting."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handler.batch import Answerer
from handler.classifier import Classifier
from handler.prediction_log import PredictionLog
from handler.recent import Recent
from handler.recorder import Recorder
from handler.telemetry import Metric, Telemetry
from tests.drawing import draw_photo, encoded
from tests.handler.asking import as_json, raw

PHOTO = encoded(draw_photo("cat", 1, (320, 240)))


class Written(Telemetry):
    """Keeps the metrics instead of writing them."""

    def __init__(self) -> None:
        super().__init__(SimpleNamespace(), "1.0.0")
        self.metrics: list[Metric] = []

    def write(self, metrics: Any) -> None:
        self.metrics += metrics

    def counters(self) -> dict[tuple[str, tuple[str, ...]], float]:
        return {(one.name, one.labels): one.value for one in self.metrics if one.name.endswith("_total")}


@pytest.fixture
def recorder(classifier: Classifier, tmp_path: Path) -> Recorder:
    log = PredictionLog(str(tmp_path / "log"), 1_000_000)
    reference = {"brightness": {"mean": 0.5, "std": 0.1}}
    return Recorder(Written(), log, Recent(tmp_path / "ring", classifier.labels), reference, "1.0.0")


def test_everything_is_recorded_once(recorder: Recorder, answerer: Answerer, tmp_path: Path) -> None:
    replies, outcome = answerer.answer(
        [raw(PHOTO, id="one"), raw(b"no photo"), as_json({"instances": ["!"]}), raw(PHOTO, id="two")]
    )
    label = json.loads(replies[0].body)["label"]
    because = json.loads(replies[0].body)["unsure_because"] or "no"
    recorder.add(outcome)
    recorder.record()
    recorder.record()

    assert recorder.telemetry.counters() == {  # type: ignore[attr-defined]
        ("petclf_predictions_total", (label, because)): 2,
        ("petclf_refused_total", ("not_an_image",)): 1,
        ("petclf_refused_total", ("bad_request",)): 1,
    }
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [entry["request_id"] for entry in entries] == ["one", "two"]
    assert {*entries[0]["photo"]} == {
        "format", "width", "height", "bytes", "brightness", "contrast", "sharpness", "colourfulness",
    }  # fmt: skip
    assert recorder.recent.summary()["total"] == 2


def test_a_batch_has_its_times_and_its_size(recorder: Recorder, answerer: Answerer) -> None:
    for photos in ([raw(PHOTO)] * 3, [raw(b"no photo")]):
        recorder.add(answerer.answer(photos)[1])
    recorder.record()

    measured = [(one.name, one.labels) for one in recorder.telemetry.metrics if not one.name.endswith("_total")]  # type: ignore[attr-defined]
    assert measured == [
        ("petclf_seconds", ("total", "answered")),
        ("petclf_seconds", ("decode", "answered")),
        ("petclf_seconds", ("model", "answered")),
        ("petclf_batch_photos", ()),
        ("petclf_seconds", ("total", "refused")),
        ("petclf_seconds", ("decode", "refused")),
    ]


def test_what_the_log_could_not_take_and_what_failed_inside_is_counted(
    recorder: Recorder, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.log = PredictionLog("/dev/full", 1_000_000)
    recorder.add(answerer.answer([raw(PHOTO)])[1])
    monkeypatch.setattr("handler.batch.to_square", None)
    recorder.add(answerer.answer([raw(PHOTO)])[1])
    recorder.record()

    counters = recorder.telemetry.counters()  # type: ignore[attr-defined]
    assert counters["petclf_log_lost_total", ()] == 1
    assert counters["petclf_failed_total", ()] == 1


def test_the_state_speaks_of_drift_only_when_there_were_enough_photos(recorder: Recorder, answerer: Answerer) -> None:
    def names() -> set[str]:
        return {metric.name for metric in recorder.state()}

    assert names() == set()
    recorder.add(answerer.answer([raw(PHOTO)] * 29)[1])
    recorder.record()
    shares = {"petclf_recent_confidence", "petclf_recent_unsure_share", "petclf_recent_label_share"}
    assert names() == shares
    recorder.add(answerer.answer([raw(PHOTO)])[1])
    recorder.record()
    assert names() == {*shares, "petclf_drift"}
