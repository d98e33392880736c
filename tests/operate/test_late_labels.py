"""Labels that come later: which predictions they are joined with, and that order and repetition change nothing."""

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from operate.client import UsageError
from operate.late_labels import Broken, Label, read_labels, read_log
from operate.late_page import HELP, as_text, differ, metrics, render, sentences
from operate.late_reader import Late, Reader
from operate.shares import share_of

START = datetime(2026, 11, 25, 22, 0, tzinfo=timezone.utc)
NOTHING = {"share": None, "interval": None, "count": 0, "photos": 0}


def line(
    request_id: str, label: str, photo: int = 1, minutes: float = 0, version: str = "2.0.0", because: str | None = None
) -> dict[str, Any]:
    """Return a line as handler/recorder.py writes it; `photo` is what the photo is like."""
    return {
        "time": (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "label": label,
        "confidence": 0.9,
        "unlike": 0.1,
        "unsure_because": because,
        "version": version,
        "photo": {"format": "JPEG", "width": 500, "height": 375, "bytes": 40_000 + photo, "brightness": 0.5},
        "milliseconds": {"decode": 1.0, "model": 3.0},
    }


def write_log(path: Path, entries: Iterable[dict[str, Any]], end: str = "") -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + end)
    return path


def write_labels(path: Path, labels: Iterable[tuple[str, str]], end: str = "") -> Path:
    path.write_text("request_id,label\n" + "".join(f"{request_id},{label}\n" for request_id, label in labels) + end)
    return path


def late(folder: Path, entries: Iterable[dict[str, Any]], labels: Iterable[tuple[str, str]], *known: str) -> Late:
    log, table = write_log(folder / "predictions.jsonl", entries), write_labels(folder / "labels.csv", labels)
    return Reader([log], [table], known).read()


def test_accuracy_by_version_and_day_coverage_and_unsure(tmp_path: Path) -> None:
    found = late(
        tmp_path,
        [
            line("a", "cat"),
            line("b", "dog", because="close_call"),
            line("c", "dog", minutes=180, version="2.1.0"),
            line("d", "cat", minutes=180),
        ],
        [("a", "cat"), ("b", "cat"), ("c", "Dog")],
    ).figures
    assert [(name, one.live.accuracy.count, one.live.coverage) for name, one in found.versions.items()] == [
        ("2.0.0", 1, share_of(2, 3)),
        ("2.1.0", 1, share_of(1, 1)),
    ]
    assert {day: (one.accuracy, one.sure, one.unsure) for day, one in found.days.items()} == {
        "2026-11-25": (share_of(1, 2), share_of(1, 1), share_of(1, 2)),
        "2026-11-26": (share_of(1, 1), share_of(1, 1), share_of(0, 2)),
    }
    assert {day: one.accuracy for day, one in found.versions["2.0.0"].days.items()} == {
        "2026-11-25": share_of(1, 2),
        "2026-11-26": share_of(0, 0),
    }
    assert (found.live.accuracy, found.live.coverage, found.live.unsure_labelled) == (
        share_of(2, 3),
        share_of(3, 4),
        share_of(1, 3),
    )
    assert found.labels == {"joined": 3, "unknown": 0, "contradictory": 0, "several_photos": 0, "foreign": 0}
    assert found.never_predicted == []


def test_the_day_is_that_of_utc_whatever_zone_the_log_has(tmp_path: Path) -> None:
    entries = [{**line("a", "cat"), "time": time} for time in ("2026-11-26T00:30:00.000+02:00",)]
    entries += [{**line("b", "cat"), "time": "2026-11-25T23:59:59Z"}, {**line("c", "cat"), "time": "2026-11-26T00:00:00"}]
    assert list(late(tmp_path, entries, []).figures.days) == ["2026-11-25", "2026-11-26"]


def test_an_id_with_two_labels_is_contradictory_and_left_out(tmp_path: Path) -> None:
    labels = [("a", "cat"), ("a", "dog"), ("a", "cat"), ("b", "cat"), ("b", "CAT")]
    found = late(tmp_path, [line("a", "cat"), line("b", "cat")], labels).figures
    assert (found.labels["contradictory"], found.labels["joined"], found.live.accuracy) == (1, 1, share_of(1, 1))


def test_a_request_with_several_photos_cannot_be_labelled_but_its_photos_count(tmp_path: Path) -> None:
    found = late(tmp_path, [line("a", "cat", 1), line("a", "dog", 2), line("b", "dog")], [("a", "cat"), ("b", "dog")]).figures
    assert (found.labels["several_photos"], found.live.coverage, found.live.accuracy) == (1, share_of(1, 3), share_of(1, 1))


def test_the_same_photo_under_the_same_id_is_one_prediction_the_first(tmp_path: Path) -> None:
    retried = [line("a", "dog", minutes=1, version="2.1.0"), line("a", "cat", minutes=0), line("a", "dog", minutes=2)]
    found = late(tmp_path, retried, [("a", "cat")]).figures
    assert (found.live.coverage, found.live.accuracy, list(found.versions)) == (share_of(1, 1), share_of(1, 1), ["2.0.0"])


def test_labels_of_requests_that_the_log_does_not_have_are_counted(tmp_path: Path) -> None:
    found = late(tmp_path, [line("a", "cat")], [("b", "cat"), ("b", "cat"), ("c", "dog")]).figures
    assert (found.labels["unknown"], found.labels["joined"], found.live.coverage) == (2, 0, share_of(0, 1))


def test_labels_that_the_model_does_not_know_are_left_out_when_its_labels_are_named(tmp_path: Path) -> None:
    entries, labels = [line("a", "cat"), line("b", "cat")], [("a", "cat"), ("b", "rabbit")]
    known, unknown = late(tmp_path, entries, labels, "cat", "dog"), late(tmp_path, entries, labels)
    assert (known.figures.live.accuracy, known.figures.labels["foreign"]) == (share_of(1, 1), 1)
    assert (unknown.figures.live.accuracy, unknown.figures.never_predicted) == (share_of(1, 2), ["rabbit"])
    assert "no prediction says rabbit: if the model does not know it, --known with the model's labels leaves it out" in sentences(
        unknown
    )


def test_without_labels_or_predictions_nothing_is_known(tmp_path: Path) -> None:
    found = late(tmp_path, [], []).document()
    json.dumps(found, allow_nan=False)
    assert (found["live"], found["versions"], found["days"]) == (
        dict.fromkeys(("coverage", "accuracy", "sure", "unsure", "unsure_labelled"), NOTHING), {}, {},
    )  # fmt: skip
    unlabelled = late(tmp_path, [line("a", "cat")], []).figures.live
    assert (unlabelled.accuracy, unlabelled.coverage) == (share_of(0, 0), share_of(0, 1))


BROKEN_LOG = [
    ("half\n", "no JSON"),
    ("[1]\n", "no prediction"),
    ("7\n", "no prediction"),
    ('{"time":"2026-11-25T22:00:00+00:00"}\n', "no prediction: request_id is missing"),
    (json.dumps({**line("a", "cat"), "time": "yesterday"}) + "\n", "no prediction"),
    (json.dumps({**line("a", "cat"), "label": None}) + "\n", "no prediction"),
    (json.dumps({**line("a", "cat"), "photo": {"bytes": [1]}}) + "\n", "no prediction"),
    ("\udcff\n", "no JSON"),
]


@pytest.mark.parametrize(("text", "reason"), BROKEN_LOG)
def test_a_broken_line_of_a_log_is_told_with_its_number_and_stops_no_other(tmp_path: Path, text: str, reason: str) -> None:
    log = tmp_path / "log"
    whole = json.dumps(line("a", "cat")) + "\n"
    log.write_bytes((whole + "\n" + text + whole).encode(errors="surrogateescape"))
    first, broken, last = read_log(log)
    assert broken == Broken(str(log), 3, reason)
    assert first == last


def test_a_last_line_that_is_half_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    whole = json.dumps(line("b", "cat"))
    log = write_log(tmp_path / "log", [line("a", "cat")], whole[:40])
    [first] = read_log(log)
    log.write_text(log.read_text() + whole[40:] + "\n")
    assert [one.request_id for one in read_log(log) if not isinstance(one, Broken)] == ["a", "b"]
    assert first == next(read_log(log))


def test_a_broken_line_of_a_label_file_is_told_with_its_number_and_stops_no_other(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(
        b"\xef\xbb\xbfphoto,label,request_id\r\n1.jpg,Cat,a\r\n\r\n2.jpg,,b\n3.jpg,dog\n4.jpg,dog,\n\xff,dog,c\n"
        b'"5.jpg,dog,d\n"6, 7.jpg", dog ,e\nphoto,label,request_id\n8.jpg,dog,f'
    )
    assert list(read_labels(table)) == [
        Label("a", "cat"),
        Broken(str(table), 4, "the label is empty"),
        Broken(str(table), 5, "the request_id is empty"),
        Broken(str(table), 6, "the request_id is empty"),
        Broken(str(table), 7, "no text in UTF-8"),
        Broken(str(table), 8, "no CSV: unexpected end of data"),
        Label("e", "dog"),
        Label("f", "dog"),
    ]


@pytest.mark.parametrize(
    ("content", "shown"), [("", "empty"), ("id,label\n", "id,label"), ("request_id;label\n", "request_id;label")]
)
def test_a_label_file_without_its_columns_is_refused(tmp_path: Path, content: str, shown: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(content)
    with pytest.raises(UsageError) as raised:
        list(read_labels(table))
    assert str(raised.value) == f"{table} needs the columns request_id, label; its first line is {shown}"


def test_the_older_parts_of_a_log_are_read_too_and_a_part_that_is_read_twice_counts_once(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [line("a", "cat")])
    write_log(tmp_path / "log.1", [line("b", "cat")])
    write_log(tmp_path / "log.10", [line("c", "cat")])
    write_log(tmp_path / "log.old", [line("d", "cat")])
    copy = write_log(tmp_path / "copy", [line("b", "cat"), line("e", "cat")])
    labels = write_labels(tmp_path / "labels", [])
    assert Reader([log], [labels]).read().figures.live.coverage == share_of(0, 3)
    assert Reader([log, log, tmp_path / "log.1", copy], [labels]).read().figures.live.coverage == share_of(0, 4)


Change = Callable[[random.Random, list[Any]], list[Any]]
CHANGES: dict[str, Change] = {
    "in any order": lambda chance, lines: chance.sample(lines, len(lines)),
    "doubled": lambda _, lines: [one for one in lines for _ in range(2)],
    "replayed": lambda _, lines: lines + lines,
    "some of them again, later": lambda chance, lines: lines + chance.choices(lines, k=len(lines)) if lines else lines,
    "backwards": lambda _, lines: lines[::-1],
}


@pytest.mark.parametrize("seed", range(60))
def test_no_order_no_repetition_and_no_split_over_files_changes_the_figures(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    entries, labels = some_predictions(chance), some_labels(chance)
    expected = asdict(late(tmp_path, entries, labels).figures)
    assert expected["live"]["coverage"]["photos"] > 0
    for name in (*CHANGES, "everything at once"):
        folder = tmp_path / name
        folder.mkdir()
        changes = list(CHANGES.values()) if name == "everything at once" else [CHANGES[name]]
        lines, changed = entries, labels
        for change in changes:
            lines, changed = change(chance, lines), change(chance, changed)
        reader = Reader(split_log(chance, folder, lines), split_labels(chance, folder, changed))
        assert asdict(reader.read().figures) == expected, name
        assert asdict(reader.read().figures) == expected, f"{name}, read again"


def some_predictions(chance: random.Random) -> list[dict[str, Any]]:
    """Return predictions of few ids, so that batches and retries are among them."""
    return [
        line(
            f"id-{chance.randrange(25)}", chance.choice(["cat", "dog"]), chance.randrange(2), chance.choice([0, 1, 180, 2000]),
            chance.choice(["2.0.0", "2.1.0"]), chance.choice([None, "close_call"]),
        )
        for _ in range(chance.randrange(1, 40))
    ]  # fmt: skip


def some_labels(chance: random.Random) -> list[tuple[str, str]]:
    """Return labels of which some contradict each other and some are of no request."""
    return [(f"id-{chance.randrange(30)}", chance.choice(["cat", "cat", "dog", "rabbit"])) for _ in range(chance.randrange(40))]


def split(chance: random.Random, lines: list[Any]) -> list[list[Any]]:
    """Cut the lines into one to four pieces."""
    cuts = sorted(chance.randrange(len(lines) + 1) for _ in range(chance.randrange(4)))
    return [lines[start:end] for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True)]


def split_log(chance: random.Random, folder: Path, lines: list[dict[str, Any]]) -> list[Path]:
    for number, part in enumerate(split(chance, lines)):
        write_log(folder / ("log" if number == 0 else f"log.{number}"), part, chance.choice(["", '{"time":"2026']))
    return [folder / "log"]


def split_labels(chance: random.Random, folder: Path, labels: list[tuple[str, str]]) -> list[Path]:
    parts = enumerate(split(chance, labels))
    return [
        write_labels(folder / f"labels-{number}.csv", part, chance.choice(["", "request_id,label\n"])) for number, part in parts
    ]


@pytest.mark.parametrize("seed", range(20))
def test_labels_that_come_piece_by_piece_end_where_all_at_once_do(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    entries, labels = some_predictions(chance), some_labels(chance)
    expected = late(tmp_path, entries, labels).figures
    log, table = write_log(tmp_path / "log", []), write_labels(tmp_path / "late.csv", [])
    reader = Reader([log], [table])
    for number in range(1, 41):
        write_log(log, entries[:number])
        write_labels(table, labels[:number])
        figures = reader.read().figures
    assert figures == expected


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    log, table = write_log(tmp_path / "log", [line("a", "cat")]), write_labels(tmp_path / "labels.csv", [("a", "cat")])
    reader = Reader([log], [table])
    reader.read()
    lines = [one.lines for one in reader.read_logs.values()]
    log.rename(tmp_path / "log.1")  # it rotates
    write_log(log, [line("b", "dog")])
    assert reader.read().figures.live.coverage == share_of(1, 2)
    assert [one.lines for one in reader.read_logs.values()][1] is lines[0]


def test_text_report_and_metrics_say_the_same(tmp_path: Path) -> None:
    entries = [line("a", "cat"), line("b", "dog"), line("c", "cat", because="low_confidence"), line("d", "cat", version="2.1.0")]
    found = late(tmp_path, entries, [("a", "cat"), ("b", "cat"), ("x", "cat"), ("c", "cat"), ("c", "dog"), ("", "cat")])
    assert as_text(found) == (
        "4 predictions, 2 with a label\n"
        "                     predictions            labelled   accuracy      95 % interval  when sure     unsure\n"
        "all                            4          2 (50.0 %)    50.00 %    9.45 to 90.55 %    50.00 %    25.00 %\n"
        "version 2.0.0                  3          2 (66.7 %)    50.00 %    9.45 to 90.55 %    50.00 %    33.33 %\n"
        "version 2.1.0                  1           0 (0.0 %)    unknown                       unknown     0.00 %\n"
        "day 2026-11-25                 4          2 (50.0 %)    50.00 %    9.45 to 90.55 %    50.00 %    25.00 %\n"
        "2.0.0 on 2026-11-25            3          2 (66.7 %)    50.00 %    9.45 to 90.55 %    50.00 %    33.33 %\n"
        "2.1.0 on 2026-11-25            1           0 (0.0 %)    unknown                       unknown     0.00 %\n"
        "labels: 2 joined with a prediction, 1 of requests that the log does not have, 1 contradictory: two labels for one request\n"
        "1 lines cannot be read: 0 of logs, 1 of label files\n"
        f"  {tmp_path}/labels.csv, line 7: the request_id is empty"
    )
    assert "<td>version 2.0.0</td>" in render(found)
    assert f"<td>{tmp_path}/labels.csv</td>" in render(found)
    samples = [one for one in metrics(found, True, 12.5).splitlines() if not one.startswith("#")]
    assert [re.sub(r"(\.\d{6})\d+", r"\1", one) for one in samples] == [
        'petclf_live_accuracy{version="2.0.0"} 0.5',
        'petclf_live_accuracy_low{version="2.0.0"} 0.094531',
        'petclf_live_accuracy_high{version="2.0.0"} 0.905468',
        'petclf_live_predictions{version="2.1.0"} 1',
        'petclf_live_predictions{version="2.0.0"} 3',
        'petclf_live_labelled{version="2.1.0"} 0',
        'petclf_live_labelled{version="2.0.0"} 2',
        'petclf_live_right{version="2.1.0"} 0',
        'petclf_live_right{version="2.0.0"} 1',
        'petclf_live_unsure{version="2.1.0"} 0',
        'petclf_live_unsure{version="2.0.0"} 1',
        'petclf_live_labels{result="joined"} 2',
        'petclf_live_labels{result="unknown"} 1',
        'petclf_live_labels{result="contradictory"} 1',
        'petclf_live_labels{result="several_photos"} 0',
        'petclf_live_labels{result="foreign"} 0',
        'petclf_live_broken_lines{file="logs"} 0',
        'petclf_live_broken_lines{file="label_files"} 1',
        "petclf_live_read_success 1",
        "petclf_live_read_timestamp_seconds 12.5",
    ]


def test_many_versions_are_few_series_and_their_names_cannot_break_the_format(tmp_path: Path) -> None:
    entries = [line(str(number), "cat", version=f"1.{number}.0", minutes=number * 1440) for number in range(30)]
    entries.append(line("x", "dog", version='2"}\n', minutes=100_000))
    found = late(tmp_path, entries, [(str(number), "cat") for number in range(30)])
    shown = [one for one in metrics(found, True, 0).splitlines() if one.startswith("petclf_live_predictions{")]
    assert (len(shown), shown[0], shown[1], shown[-1]) == (
        21,
        r'petclf_live_predictions{version="2\"}\n"} 1',
        'petclf_live_predictions{version="1.29.0"} 1',
        'petclf_live_predictions{version="other"} 11',
    )
    assert 'petclf_live_accuracy{version="other"} 1.0\n' in metrics(found, True, 0)


def test_it_is_said_when_the_labelled_predictions_are_not_like_the_rest(tmp_path: Path) -> None:
    entries = [line(str(number), "cat", because="close_call" if number % 10 == 0 else None) for number in range(200)]
    found = late(tmp_path, entries, [(str(number), "cat") for number in range(0, 200, 10)])
    assert sentences(found)[1:] == ["the labelled predictions are not like the rest: 100.00 % of them are unsure, of all 10.00 %"]
    assert not differ(share_of(10, 100), share_of(2, 20))
    assert not differ(share_of(0, 0), share_of(0, 0))


def test_the_document_lists_every_metric_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "live-accuracy.md").read_text(encoding="utf-8")
    listed = [name for row in re.findall(r"^\| (`petclf_live.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert listed == list(HELP)
