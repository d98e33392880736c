"""The tool that asks a running server about labelled photos: what it prints, writes and logs, and its exit code."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from operate import score_run
from operate.labelled import Answered, figures
from operate.late_labels import Label, read_labels
from operate.score_live import Scored, judge, write_report
from operate.shares import share_of
from scripts.score_live import main
from tests.drawing import draw_photo, encoded
from tests.operate.standin import ARCHIVE, standing_in, write_photos
from training import tracking

CAT, DOG = {"cat": 0.95, "dog": 0.05}, {"cat": 0.1, "dog": 0.9}


@pytest.fixture
def server() -> Iterator[str]:
    with standing_in() as address:
        yield address


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos; one cat is answered dog, one dog is refused, and of a horse nobody knows."""
    close = {"cat": 0.4, "dog": 0.6, "unsure": True, "unsure_because": "close_call"}
    return write_photos(
        tmp_path / "photos", cat__1=CAT, cat__2=CAT, cat__3=CAT, cat__4=close, dog__1=DOG, dog__2=DOG, dog__3={"status": 422},
        horse__1=DOG,
    )  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def test_it_prints_how_right_the_server_is(server: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, photos, "--server", server)
    assert re.sub(r"\d+\.\d ms", "T ms", out) == (
        "8 photos, 7 answered\n"
        "accuracy            83.33 % (5 of 6; 95 % interval 43.65 to 96.99 %)\n"
        "balanced accuracy   87.50 %\n"
        "accuracy when sure  100.00 % (5 of 5; 95 % interval 56.55 to 100.00 %)\n"
        "unsure              16.67 % (1 of 6; 95 % interval 3.01 to 56.35 %)\n"
        "unlike              0.00 % (0 of 6; 95 % interval 0.00 to 39.03 %)\n"
        "calibration error   0.1583 (15 bins)\n"
        "latency             p50 T ms, p95 T ms, p99 T ms\n"
        "version             1.0.0\n"
        "archive             aaaaaaaaaaaa\n"
        "labels\n"
        "  cat          4 photos      75.00 %  answered instead: dog 1\n"
        "  dog          2 photos     100.00 %\n"
        "  horse        1 photos  not counted  answered instead: dog 1\n"
        "mistakes (1), the most confident first\n"
        "  cat/4.jpg  cat, answered dog at 60.0 %, unsure: close call\n"
        "not answered\n"
        "  dog/3.jpg  refused with 422\n"
        "1 of 8 photos were not answered; no figure counts them.\n"
        "The model knows only cat, dog; photos of other labels are not counted: horse (1).\n"
    )
    assert (code, err) == (1, "1 of 8 photos were not answered\n")


def test_what_is_written_is_what_is_printed(
    server: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "a" / "report"
    _, out, err = run(capsys, photos, "--server", server, "--json", "--report", report)
    printed = json.loads(out)
    assert json.loads((report / "figures.json").read_text()) == printed
    assert {path.name for path in report.iterdir()} == {"answers.csv", "figures.json", "report.html"}
    assert err.startswith(f"report: {report}/report.html\n")
    assert {name: printed[name] for name in ("source", "server", "model", "jobs")} == {
        "source": str(photos), "server": server, "model": "petclf", "jobs": 4,
    }  # fmt: skip
    assert (printed["accuracy"]["count"], printed["accuracy"]["photos"]) == (5, 6)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", printed["time"])


def test_the_answers_have_a_line_for_each_photo(server: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(photos), "--server", server, "--report", str(tmp_path / "report")])
    with (tmp_path / "report" / "answers.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["photo"] for line in lines] == [f"{name}.jpg" for name in (
        "cat/1", "cat/2", "cat/3", "cat/4", "dog/1", "dog/2", "dog/3", "horse/1"
    )]  # fmt: skip
    assert float(lines[3].pop("milliseconds")) > 0
    assert lines[3] == {
        "photo": "cat/4.jpg", "label": "cat", "answer": "dog", "probability_cat": "0.4", "probability_dog": "0.6",
        "unsure_because": "close_call", "unlike": "", "version": "1.0.0", "archive": ARCHIVE, "request_id": "from-the-server",
        "error": "",
    }  # fmt: skip
    assert {name: value for name, value in lines[6].items() if value} == {
        "photo": "dog/3.jpg", "label": "dog", "milliseconds": "0.0", "error": "refused with 422",
    }  # fmt: skip


def test_the_answers_are_a_label_file_for_late_labels(server: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(photos), "--server", server, "--report", str(tmp_path / "report")])
    labels = [one for one in read_labels(tmp_path / "report" / "answers.csv") if isinstance(one, Label)]
    assert labels == [Label("from-the-server", label) for label in ["cat"] * 4 + ["dog"] * 2 + ["horse"]]


def scored(answers: list[Answered]) -> Scored:
    return Scored("photos", "http://127.0.0.1:8080", "petclf", "2026-01-02T03:04:05+00:00", 1.5, 4, answers, figures(answers))


def test_the_report_needs_no_network_shows_no_photo_and_runs_nothing(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>.jpg"
    wrong = Answered(name, "cat", "dog", {"cat": 0.3, "dog": 0.7}, "close_call", None, 5.0, "<i>2</i>", ARCHIVE, "id")
    answers = scored([wrong, Answered("&.jpg", "dog", error="<b>no</b>")])
    text = write_report(answers, tmp_path).read_text() + write_report(answers, tmp_path, {name: tmp_path / "away"}).read_text()
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;.jpg</td><td>cat</td><td>dog</td>" in text
    assert "<td>&amp;.jpg</td><td>dog</td><td>&lt;b&gt;no&lt;/b&gt;</td>" in text
    assert re.findall(r"<(script|img|link|iframe|b>no|i>2)|(?:src|href)=|url\(|@import", text) == []


def test_the_report_shows_the_photos_that_were_answered_wrong_when_asked_to(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(draw_photo("cat", 1), "PNG"))
    (tmp_path / "2.png").write_text("no photo")
    wrong = [Answered(name, "cat", "dog", {"cat": 0.3, "dog": 0.7}) for name in ("1.png", "2.png")]
    right = Answered("3.png", "dog", "dog", {"cat": 0.3, "dog": 0.7})
    paths = {name: tmp_path / name for name in ("1.png", "2.png", "3.png")}
    text = write_report(scored([*wrong, right]), tmp_path / "report", paths).read_text()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 1
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == [
        "1.png: cat, answered dog at 70.0 %",
        "2.png: cat, answered dog at 70.0 %",
    ]


@pytest.mark.parametrize(
    ("right", "photos", "at_least", "enough", "sentence"),
    [
        (99, 100, 0.94, True, "the accuracy is at least 94.00 %: its interval begins at 94.55 %"),
        (
            99, 100, 0.97, False,
            "100 photos do not show that the accuracy is at least 97.00 %: its interval begins at 94.55 %; "
            "about 280 photos would, if as many of them are right",
        ),
        (97, 100, 0.97, False, "the accuracy is not above 97.00 %: 97.00 %, and its interval begins at 91.55 %"),
        (0, 0, 0.97, False, "no accuracy could be measured, so it is not known to be 97.00 %"),
    ],
)  # fmt: skip
def test_the_threshold_is_compared_with_the_lower_end_of_the_interval(
    right: int, photos: int, at_least: float, enough: bool, sentence: str
) -> None:
    assert judge(share_of(right, photos), at_least) == (enough, sentence)


def test_as_many_photos_as_it_names_do_show_it() -> None:
    """280 photos of which 99 % are right reach 97 %, and 270 do not."""
    low, high = (share_of(round(photos * 0.99), photos).interval for photos in (270, 300))
    assert low is not None
    assert high is not None
    assert low[0] < 0.97 <= high[0]


@pytest.mark.parametrize(("at_least", "code"), [("0.5", 0), ("0.99", 1)])
def test_the_exit_code_says_whether_it_is_right_enough(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], at_least: str, code: int
) -> None:
    write_photos(tmp_path, **{f"cat__{number}": CAT for number in range(8)})
    assert run(capsys, tmp_path, "--server", server, "--at-least", at_least)[0] == code


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing"], "error: no folder and no CSV at missing\n"),
        (["photos", "--server", "127.0.0.1:9", "--retries", "0"],
         "error: http://127.0.0.1:9: the server cannot be reached: Connection refused; is it running?\n"),
        (["photos", "--report", "photos/cat/1.jpg"], "error: cannot use photos/cat/1.jpg: File exists\n"),
        (["photos", "--at-least", "97"], "argument --at-least: 97 is no share between 0 and 1; write it like 0.97\n"),
        (["photos", "--at-least", "nan"], "argument --at-least: nan is no share between 0 and 1; write it like 0.97\n"),
        (["photos", "--jobs", "0"], "argument --jobs: 0 is no whole number of at least 1\n"),
        (["photos", "--timeout", "-1"], "argument --timeout: -1 is no number above 0\n"),
        (["photos", "--show-photos"], "--show-photos needs --report\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_sentence(
    server: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    code, out, err = run(capsys, "--server", server, *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(told)
    assert "Traceback" not in err


def test_a_run_in_mlflow_holds_figures_and_report(
    server: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    run(capsys, photos, "--server", server, "--mlflow")

    client = tracking.Run().client
    experiment = client.get_experiment_by_name("petclf")
    [logged] = [one for one in client.search_runs([experiment.experiment_id]) if "version" in one.data.tags]
    assert (logged.info.run_name, logged.info.status) == ("live 1.0.0", "FINISHED")
    times = {name: logged.data.metrics.pop(f"live_{name}_ms") for name in ("p50", "p95", "p99")}
    assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    assert logged.data.metrics == {
        "live_photos": 6, "live_not_answered": 1, "live_accuracy": pytest.approx(5 / 6),
        "live_accuracy_low": pytest.approx(0.43649, abs=1e-5), "live_accuracy_high": pytest.approx(0.96995, abs=1e-5),
        "live_balanced_accuracy": 0.875, "live_calibration_error": pytest.approx(0.158333, abs=1e-5), "live_sure_accuracy": 1.0,
        "live_unsure_share": pytest.approx(1 / 6), "live_unlike_share": 0.0,
    }  # fmt: skip
    assert logged.data.params == {"source": str(photos), "server": server, "model": "petclf", "jobs": "4"}
    assert logged.data.tags["archive"] == ARCHIVE
    assert {file.path for file in client.list_artifacts(logged.info.run_id, "live")} == {
        "live/answers.csv", "live/figures.json", "live/report.html",
    }  # fmt: skip


def test_a_tracking_store_that_is_away_is_told_before_the_server_is_asked(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run(capsys, photos, "--server", "127.0.0.1:9", "--mlflow") == (2, "", (
        "error: the tracking store http://127.0.0.1:9 failed: Connection refused; start it, or unset MLFLOW_TRACKING_URI\n"
    ))  # fmt: skip


def test_a_run_that_fails_is_marked_as_failed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert run(capsys, photos, "--server", "127.0.0.1:9", "--retries", "0", "--mlflow")[0] == 2
    client: Any = score_run.TrackedScore().client
    runs = client.search_runs([client.get_experiment_by_name("petclf").experiment_id])
    assert sorted(one.info.status for one in runs) == ["FAILED", "RUNNING"]


def test_live_runs_are_beside_the_trainings() -> None:
    assert (score_run.STORE, score_run.EXPERIMENT) == (tracking.STORE, tracking.EXPERIMENT)


def test_nothing_that_is_not_a_number_is_logged() -> None:
    assert score_run.metrics(figures([])) == {"live_photos": 0.0, "live_not_answered": 0.0}
    assert json.dumps(asdict(figures([])), allow_nan=False)
