"""From lines to an answer: which photos are the reference, which are watched, and when there is too little to tell."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from operate.drift import DriftError
from operate.drift_exporter import HELP, Exporter, metrics
from operate.drift_report import write_report
from operate.drift_watch import State, Watcher, references_of_log, references_of_model
from operate.drift_words import as_json, lines, percent
from operate.photo_log import PhotoLog
from tests.operate.lines import as_text, darker, entries, written
from tests.test_monitoring import DRIFT

ROOT = Path(__file__).parents[2]
LOG = entries(2_300)
Write = Callable[..., State]


@pytest.fixture
def state_of(tmp_path: Path) -> Write:
    """Return what is known of a log with these lines."""

    def state(*parts: list[dict[str, Any]], looks: int = 1, **options: Any) -> State:
        watcher = Watcher([PhotoLog(written(tmp_path / "log", *parts))], **options)
        watcher.read()
        return watcher.state(looks)

    return state


def test_the_first_thousand_photos_are_the_reference(state_of: Write) -> None:
    state = state_of(LOG[:1_000], darker(LOG[1_000:]))
    assert (state.verdict, state.count, state.reference and state.reference.origin) == (
        "drift", 1_300, "the first 1,000 photos of the log",
    )  # fmt: skip
    assert [*lines(state)][-1] == (
        "last look: 2026-11-20 12:38:19 UTC; where nothing changes, a look finds drift in at most 1 of 10,000 cases"
    )
    assert next(lines(state)) == "drift since the first of these photos"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "the log has 0 photos; the first 1,000 become the reference"),
        (999, "the log has 999 photos of version 2.0.0; the first 1,000 become the reference"),
        (1_000, "the log has 0 photos of version 2.0.0 beside the reference; a look needs 100"),
        (1_099, "the log has 99 photos of version 2.0.0 beside the reference; a look needs 100"),
    ],
)
def test_too_little_data_is_never_called_no_drift(state_of: Write, count: int, said: str) -> None:
    state = state_of(LOG[:count])
    assert (state.verdict, state.lacking, state.looks, state.findings) == ("too little data", said, (), [])
    assert next(lines(state)) == f"too little data: {said}"
    assert as_json(state)["verdict"] == "too little data"


def test_a_look_happens_after_every_hundred_photos_and_not_between(state_of: Write) -> None:
    """Who reads the log more often must not get more chances of a false alarm."""
    ends = {count: [look.end for look in state_of(LOG[: 1_000 + count], looks=3).looks] for count in (100, 199, 200, 350)}
    assert ends == {100: [100], 199: [100], 200: [100, 200], 350: [100, 200, 300]}


def test_looks_stay_at_the_same_photos_when_old_ones_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operate.drift_watch.KEPT", 250)
    watcher = Watcher([PhotoLog(written(tmp_path / "log", LOG[:1_730]))])
    watcher.read()
    state = watcher.state(looks=9)
    assert (state.count, len(state.photos)) == (730, 250)
    last = [float(state.photos.times[look.end - 1]) for look in state.looks]
    assert last == [1_795_176_000.0 + second for second in (1_599, 1_699)]
    assert {look.verdict for look in state.looks} == {"no drift found"}


def test_a_log_that_is_read_on_gives_the_same_answer_as_one_that_is_read_at_once(tmp_path: Path, state_of: Write) -> None:
    made = [*LOG[:1_900], *darker(LOG[1_900:])]
    path = written(tmp_path / "grows", [])
    watcher = Watcher([PhotoLog(path)])
    for start in range(0, len(made), 230):
        with path.open("a") as file:
            file.write(as_text(made[start : start + 230]))
        watcher.read()
    assert as_json(watcher.state()) == as_json(state_of(made))


def test_only_photos_of_the_version_that_answered_last_are_compared(state_of: Write) -> None:
    old, new = darker(entries(1_500, version="1.3.0")), entries(1_200, seed=1, first=1_500, version="2.0.0")
    state = state_of(old, new)
    assert (state.version, state.verdict, state.count, state.other_versions) == ("2.0.0", "no drift found", 200, 1_500)
    assert "left out: 1,500 photos that other versions answered" in [*lines(state)]
    assert state_of(old, new, version="1.3.0").count == 500


def test_a_reference_from_another_log_must_be_of_the_same_version(tmp_path: Path, state_of: Write) -> None:
    references = references_of_log(written(tmp_path / "before", entries(600, seed=2, version="1.3.0")))
    with pytest.raises(
        DriftError, match=re.escape("the reference has 1.3.0, and the photos were answered by 2.0.0; take a reference of that")
    ):
        state_of(LOG, references=references)
    same = references_of_log(written(tmp_path / "before", entries(600, seed=2)))
    state = state_of(darker(LOG[:100]), references=same)
    assert (state.verdict, state.reference and state.reference.photos) == ("drift", 600)


def test_a_small_reference_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "before", entries(499))
    with pytest.raises(DriftError, match=re.escape(f"{path} has 499 photos of one version; a reference needs 500")):
        references_of_log(path)


def test_the_reference_inside_a_model_is_of_its_version(state_of: Write) -> None:
    references = references_of_model(ROOT / "pretrained" / "petclf.pt")
    state = state_of(LOG[:100], references=references)
    assert state.reference
    assert [*references] == ["2.0.0"]
    assert state.reference.origin == "training (petclf 2.0.0)"
    assert [one.difference.statistic for one in state.findings][:2] == ["width", "height"]


@pytest.mark.parametrize("content", [None, b"", b"no zip"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    for name in ("petclf.mar", "petclf.pt"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DriftError, match=re.escape(str(tmp_path / name)) + r".*name an archive \(.mar\) or a petclf.pt"):
            references_of_model(tmp_path / name)


def test_a_log_of_something_else_is_told_from_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("GET /\n" * 3)
    watcher = Watcher([PhotoLog(tmp_path / "log")])
    watcher.read()
    with pytest.raises(
        DriftError, match="none of 3 lines is one of petclf's prediction log; name the file of PETCLF_PREDICTION_LOG"
    ):
        watcher.state()


def test_json_tells_what_since_when_and_how_sure(state_of: Write) -> None:
    told = as_json(state_of(LOG[:1_900], entries(400, seed=7, first=1_900, label="dog")))
    [drift] = told.pop("drift")
    assert told.pop("windows")[0]["statistics"]["label"] == {"p": drift["p"], "distance": 0.491, "drift": True}
    assert told == {
        "verdict": "drift", "lacking": None, "version": "2.0.0", "photos": 1_300, "other_versions": 0, "broken_lines": 0,
        "reference": {"origin": "the first 1,000 photos of the log", "photos": 1_000},
        "last_look": "2026-11-20T12:38:19.000+00:00",
    }  # fmt: skip
    assert (drift["statistic"], drift["p"] < 1e-15) == ("label", True)
    assert drift["words"] == "label dog: 100 % of the last 100, 51 % before"
    assert abs(drift["since"]["photos_ago"] - 400) <= 5
    assert drift["since"]["or_before"] is False
    json.dumps(told)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "0.04 %"), (0.126, "13 %"), (0.996, "99.6 %"), (0.9996, "99.96 %"), (1, "100 %")],
)
def test_a_share_is_full_or_empty_only_where_it_is(share: float, text: str) -> None:
    assert percent(share) == text


def test_prometheus_reads_the_gauges(state_of: Write) -> None:
    text = metrics(state_of(LOG[:1_900], darker(LOG[1_900:])))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name.removesuffix("_total") for name in HELP} == set(families)
    assert {sample.labels["window"]: sample.value for sample in families["petclf_drift_found"].samples} == {"100": 1, "1000": 1}
    [since] = families["petclf_drift_since_timestamp_seconds"].samples
    assert since.labels == {"statistic": "brightness"}
    assert abs(since.value - 1_795_176_000 - 1_900) <= 5
    assert [sample.value for sample in families["petclf_drift_photos"].samples] == [1_300]
    assert len(families["petclf_drift_p_value"].samples) == len(families["petclf_drift_distance"].samples) == 24


def test_what_the_alert_speaks_of_is_sent_with_its_labels(state_of: Write) -> None:
    text = metrics(state_of(LOG[:1_900], darker(LOG[1_900:])))
    sent = {sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {name: sent[name] for name in DRIFT} == DRIFT


def test_prometheus_gets_no_verdict_where_there_is_too_little_data(state_of: Write) -> None:
    assert "petclf_drift_found{" not in metrics(state_of(LOG[:1_050]))


def test_the_exporter_reads_on_and_is_an_error_when_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "log", LOG[:1_900])
    exporter = Exporter(Watcher([PhotoLog(path)]), seconds=60)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    exporter.start("127.0.0.1", port)
    assert fetched(port, "/metrics") == (503, "")
    exporter.look()
    assert 'petclf_drift_found{window="100"} 0.0\n' in fetched(port, "/metrics")[1]
    with path.open("a") as file:
        file.write(as_text(darker(LOG[1_900:])))
    exporter.look()
    exporter.look()
    status, text = fetched(port, "/metrics")
    assert (status, 'petclf_drift_found{window="100"} 1.0\n' in text) == (200, True)
    assert fetched(port, "/")[0] == 404
    path.unlink()
    exporter.look()
    exporter.seconds = 0
    assert fetched(port, "/metrics") == (503, "")
    said = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert said[:2] == ["no drift found", "drift in brightness"]
    assert said[2].startswith(f"cannot look: no prediction log at {path}")
    assert len(said) == 3


def fetched(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_report_is_one_file_with_a_plot_of_each_statistic(tmp_path: Path, state_of: Write) -> None:
    written_to = write_report(state_of(LOG[:1_900], darker(LOG[1_900:]), looks=3), tmp_path / "report")
    text = written_to.read_text()
    assert [path.name for path in written_to.parent.iterdir()] == ["report.html"]
    assert not re.findall(r"https?:|src=|href=|<script|NaN|\$", text)
    assert re.findall(r"<h2>(\w+)</h2>", text)[:3] == ["Windows", "brightness", "confidence"]
    assert text.count("<svg") == text.count("</svg>") == 12 + 9  # each over time, each number's distribution
    assert text.count("<td class=drift>") == 2
    assert text.count('class="began"') == 1
    assert "last 10,000: too little data" in text
    assert "prefers-color-scheme: dark" in text


def test_the_report_says_what_is_lacking_and_escapes_what_the_log_holds(tmp_path: Path, state_of: Write) -> None:
    state = state_of(entries(3, version="<b>"))
    text = write_report(state, tmp_path).read_text()
    assert "<h1>Too little data</h1>" in text
    assert "3 photos of version &lt;b&gt;; the first 1,000 become the reference" in text
    assert "<b>" not in text
