"""A candidate passes, fails or stays open for the right reason, whatever is in the log."""

import json
import random
import re
import shlex
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from operate.shadow import is_chosen
from scripts import shadow
from tests.documents import commands

LIVE, CANDIDATE = "2.0.0", "2.1.0"
START = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=2)  # a log has milliseconds


def line(number: int, version: str, label: str = "cat", name: str = "", **other: Any) -> dict[str, Any]:
    """What the handler writes of photo `number`; the candidate's answer comes a moment later."""
    late = timedelta(seconds=number / 10 + 0.2 * (version == CANDIDATE))
    return {
        "time": (START + late).isoformat(timespec="milliseconds"), "request_id": name or f"id-{number}", "label": label, "confidence": 0.99,
        "unlike": 0.1, "unsure_because": None, "version": version,
        "photo": {"format": "JPEG", "width": 500, "height": 375, "bytes": 40_000 + number, "brightness": 0.5, "contrast": 0.2},
        "milliseconds": {"decode": 1.5, "model": 5.0 if version == LIVE else 7.0}, **other,
    }  # fmt: skip


def write(path: Path, entries: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def both(count: int, candidate: Callable[[int], str | None] = lambda _: "cat") -> list[dict[str, Any]]:
    """All are chosen (--share 100); None: the candidate did not answer. The last photo is too new to be missed."""
    entries = [line(number, LIVE) for number in range(count)]
    answers = [(number, candidate(number)) for number in range(count)]
    return [*entries, *(line(number, CANDIDATE, label) for number, label in answers if label), line(count + 1000, LIVE)]


@pytest.fixture
def judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def judge(entries: Iterable[dict[str, Any]], *options: str) -> tuple[int, dict[str, Any]]:
        log = write(tmp_path / "predictions.jsonl", entries)
        with pytest.raises(SystemExit) as ended:
            shadow.main([str(log), "--candidate", CANDIDATE, "--share", "100", "--json", *options])
        out = capsys.readouterr()
        assert out.err == ""
        return int(ended.value.code or 0), json.loads(out.out)

    return judge


Judged = Callable[..., tuple[int, dict[str, Any]]]


def labels(path: Path, known: dict[int, str]) -> str:
    path.write_text("request_id,label\n" + "".join(f"id-{number},{label}\n" for number, label in known.items()), encoding="utf-8")
    return f"--labels={path}"


def test_a_candidate_that_never_differs_passes_without_a_label(judged: Judged) -> None:
    code, report = judged(both(2000))
    assert (code, report["verdict"], report["live"]) == (0, "not worse", LIVE)
    assert report["why"] == "the two give different labels, or 2.1.0 none, for less than 1 point of the photos"
    assert {name: report[name] for name in ("chosen", "compared", "missing", "pending", "repeated", "ambiguous")} == {
        "chosen": 2001, "compared": 2000, "missing": 0, "pending": 1, "repeated": 0, "ambiguous": 0,
    }  # fmt: skip
    assert report["lines"] == {LIVE: 2001, CANDIDATE: 2000}
    assert report["disagreement"]["mean"] == 0
    assert report["disagreement"]["high"] < 0.01
    assert report["milliseconds"] == {LIVE: {"p50": 6.5, "p99": 6.5}, CANDIDATE: {"p50": 8.5, "p99": 8.5}}


def test_few_photos_are_no_pass_however_well_they_agree(judged: Judged) -> None:
    code, report = judged(both(300))
    assert (code, report["verdict"]) == (3, "not known yet")
    assert report["why"] == "more photos are needed; labels for some of them tell more (--labels)"


def test_a_candidate_that_is_often_wrong_alone_is_worse(judged: Judged, tmp_path: Path) -> None:
    truth = labels(tmp_path / "labels.csv", dict.fromkeys(range(1500), "cat"))
    code, report = judged(both(1500, lambda number: "dog" if number % 25 == 0 else "cat"), truth)
    assert (code, report["verdict"]) == (1, "worse")
    assert report["why"] == "by the labels, 2.1.0 is wrong alone more often than 2.0.0 is"
    assert {name: report["labels"][name] for name in ("photos", "only_live_right", "only_candidate_right", "unused")} == {
        "photos": 1500, "only_live_right": 60, "only_candidate_right": 0, "unused": 0,
    }  # fmt: skip
    assert report["labels"]["worse_by"]["mean"] == 0.04
    assert 0 < report["labels"]["worse_by"]["low"] < 0.04 < report["labels"]["worse_by"]["high"]


def test_a_candidate_that_differs_but_is_right_as_often_passes_by_the_labels(judged: Judged, tmp_path: Path) -> None:
    def answer(number: int) -> str:
        return "dog" if number % 50 in (0, 1) else "cat"

    truth = {number: "dog" if number % 50 == 0 else "cat" for number in range(12_000)}
    code, report = judged(both(12_000, answer))
    assert (code, report["verdict"]) == (3, "not known yet")
    code, report = judged(both(12_000, answer), labels(tmp_path / "labels.csv", truth))
    assert (code, report["why"]) == (0, "by the labels, 2.1.0 is right less often by less than 1 point")
    assert report["labels"]["worse_by"]["mean"] == 0


def test_no_answer_counts_as_another_answer(judged: Judged) -> None:
    """A candidate that gives no answer to what is hard for it would otherwise pass by the easy photos."""
    code, report = judged(both(5000, lambda number: None if number % 10 == 9 else "cat"))
    assert (code, report["verdict"], report["compared"], report["missing"]) == (3, "not known yet", 4500, 500)
    assert report["why"].startswith("500 of 5,000 photos have no answer of the candidate: it is slow, down or refuses them")
    assert judged(both(5000, lambda number: None if number == 9 else "cat"))[1]["verdict"] == "not worse"


def test_no_answer_is_not_right_where_labels_are_known(judged: Judged, tmp_path: Path) -> None:
    truth = labels(tmp_path / "labels.csv", dict.fromkeys(range(5000), "cat"))
    code, report = judged(both(5000, lambda number: None if number % 50 == 9 else "cat"), truth)
    assert (code, report["verdict"]) == (3, "not known yet")
    assert (report["labels"]["photos"], report["labels"]["without_answer"]) == (4900, 100)


def test_a_dead_candidate_does_not_pass_by_what_it_answered_before(judged: Judged) -> None:
    code, report = judged(both(4000, lambda number: "cat" if number < 3000 else None))
    assert (code, report["compared"], report["missing"]) == (3, 3000, 1000)


@pytest.mark.parametrize(
    "entries", [[], [line(number, CANDIDATE) for number in range(3000)], [line(number, LIVE) for number in range(3000)]]
)
def test_a_log_that_is_empty_or_has_one_side_only_is_no_pass(judged: Judged, entries: list[dict[str, Any]]) -> None:
    code, report = judged(entries, "--live", LIVE)
    assert (code, report["verdict"], report["compared"]) == (3, "not known yet", 0)
    assert report["why"].startswith("no photo has an answer of 2.0.0 and of 2.1.0: is GATEWAY_SHADOW=2.1.0 set")
    assert report["disagreement"]["mean"] is None


def test_old_answers_are_no_pass(judged: Judged) -> None:
    code, report = judged(both(2000), "--max-age", "0.5")
    assert (code, report["verdict"]) == (3, "not known yet")
    assert report["why"].startswith("stale: the newest pair is of 20")


def test_the_same_photo_again_is_no_new_evidence(judged: Judged) -> None:
    """A probe, or somebody who asks on purpose, sends one photo all the time."""
    photo = line(0, LIVE)["photo"]
    entries = [line(number, version, photo=photo) for number in range(3000) for version in (LIVE, CANDIDATE)]
    code, report = judged(entries)
    assert (code, report["compared"], report["repeated"]) == (3, 1, 2999)


def test_photos_of_one_request_and_ids_that_clients_use_again_are_told_apart_by_the_photo(judged: Judged) -> None:
    entries = [line(number, version, name="always-mine") for number in range(2000) for version in (LIVE, CANDIDATE)]
    code, report = judged(entries)
    assert (code, report["compared"], report["ambiguous"]) == (0, 2000, 0)


def test_a_photo_that_came_twice_under_one_id_is_left_out(judged: Judged) -> None:
    entries = [*both(100), line(7, CANDIDATE, "dog"), line(8, LIVE)]
    _, report = judged(entries)
    assert (report["compared"], report["ambiguous"], report["disagreement"]["mean"]) == (98, 3, 0)


def test_only_what_the_gateway_chose_is_compared(judged: Judged) -> None:
    entries = [line(number, version) for number in range(3000) for version in (LIVE, CANDIDATE)]
    chosen = sum(is_chosen(f"id-{number}", 10) for number in range(3000))
    _, report = judged(entries, "--share", "10")
    assert (report["chosen"], report["compared"], report["lines"]) == (chosen, chosen, {LIVE: 3000, CANDIDATE: 3000})
    assert 250 < chosen < 350


@pytest.mark.parametrize("name", ["{}", "photo-{}", "00000000-0000-0000-0000-{:012d}", "{:032x}"])
def test_a_tenth_is_chosen_whatever_the_ids_look_like(name: str) -> None:
    chosen = sum(is_chosen(name.format(number), 10) for number in range(20_000))
    assert 1800 < chosen < 2200


def test_labels_that_depend_on_the_answers_decide_nothing(judged: Judged, tmp_path: Path) -> None:
    """Labels for no photo but those on which the two differ."""
    differing = {number: "cat" for number in range(3000) if number % 10 == 0}
    code, report = judged(
        both(3000, lambda number: "dog" if number % 10 == 0 else "cat"), labels(tmp_path / "labels.csv", differing)
    )
    assert (code, report["verdict"], report["labels"]["chosen_by_answer"]) == (3, "not known yet", True)
    assert "label photos whatever was answered" in report["why"]


def test_labels_that_no_version_gives_are_not_counted_as_mistakes_of_both(judged: Judged, tmp_path: Path) -> None:
    truth = labels(tmp_path / "labels.csv", dict.fromkeys(range(3000), "Cat"))
    code, report = judged(both(3000, lambda number: "dog" if number % 20 == 0 else "cat"), truth)
    assert (code, report["labels"]["photos"], report["labels"]["unknown"]) == (3, 0, 3000)


def test_a_label_that_contradicts_itself_or_is_of_no_compared_photo_is_not_used(judged: Judged, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("request_id,label\nid-1,cat\nid-2,cat\nid-2,dog\nid-9999,cat\n", encoding="utf-8")
    _, report = judged(both(50), f"--labels={file}")
    assert (report["labels"]["photos"], report["labels"]["unused"]) == (1, 2)


def test_more_unsure_answers_are_seen(judged: Judged) -> None:
    entries = both(1000)
    for entry in entries:
        if entry["version"] == CANDIDATE and int(entry["request_id"][3:]) % 5 == 0:
            entry["unsure_because"] = "close_call"
    _, report = judged(entries)
    assert report["unsure"] == {LIVE: 0, CANDIDATE: 0.2}
    assert report["unsure_difference"]["mean"] == 0.2
    assert 0.1 < report["unsure_difference"]["low"] < 0.2 < report["unsure_difference"]["high"] < 0.3


def test_rotated_files_are_read_and_broken_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = both(900)
    random.Random(0).shuffle(entries)
    log = write(tmp_path / "predictions.jsonl", entries[:600])
    write(tmp_path / "predictions.jsonl.1", entries[600:1200])
    write(tmp_path / "predictions.jsonl.2", entries[1200:])
    bad = {"version": 1, "label": "", "time": "yesterday", "photo": [], "milliseconds": {"decode": float("nan"), "model": 1}}
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time":"2026\n\n[]\n"text"\n')
        file.writelines(json.dumps({**line(1, LIVE), name: value}) + "\n" for name, value in bad.items())
    with pytest.raises(SystemExit):
        shadow.main([str(log), str(tmp_path / "predictions.jsonl.1"), "--candidate", CANDIDATE, "--share", "100", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["compared"], report["ambiguous"], report["broken_lines"]) == (900, 0, 8)


def test_people_read_the_verdict_in_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "predictions.jsonl", both(1000, lambda number: "dog" if number % 100 == 0 else "cat"))
    truth = labels(tmp_path / "labels.csv", dict.fromkeys(range(500), "cat"))
    with pytest.raises(SystemExit) as ended:
        shadow.main([str(log), "--candidate", CANDIDATE, "--share", "100", truth])
    told = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", capsys.readouterr().out)
    assert ended.value.code == 3
    assert re.sub(r"\[[^]]*\]", "[...]", told).splitlines() == [
        "2.1.0 beside 2.0.0, TIME to TIME UTC; ranges hold at all moments together with 95 %",
        "lines         1,001 of 2.0.0, 1,000 of 2.1.0, 0 broken",
        "photos        1,001 chosen (100 %), 1,000 compared, 0 without an answer of 2.1.0; left out: 0 repeated, 0 ambiguous, 1 too new",
        "disagreement  1.00 % [...]",
        "unsure        0.00 % -> 0.00 %: +0.00 points [...]",
        "milliseconds  p50 6.5 -> 8.5, p99 6.5 -> 8.5",
        "labels        500 photos with a label; only 2.0.0 right 5, only 2.1.0 right 0: worse by +1.00 points [...]; 0 unused, 0 that no version gives",
        "verdict       not known yet: more photos, or more labels, are needed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "options", "said"),
    [
        ([line(1, "1.3.0"), line(2, LIVE)], [], "the log must hold one version beside 2.1.0, and holds 1.3.0, 2.0.0; name the live one with --live"),
        ([], [], "the log must hold one version beside 2.1.0, and holds none; name the live one with --live"),
        ([], ["predictions.jsonl", "--labels", "none.csv"], "cannot read none.csv: No such file or directory"),
        ([], ["predictions.jsonl", "--labels", "predictions.jsonl"], "predictions.jsonl has no columns request_id and label; its first line must name them"),
        ([], ["nowhere.jsonl"], "cannot read nowhere.jsonl: No such file or directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    entries: list[dict[str, Any]], options: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "predictions.jsonl", entries)
    with pytest.raises(SystemExit) as ended:
        shadow.main(["--candidate", CANDIDATE, *(options or ["predictions.jsonl"])])
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {said}\n")


@pytest.mark.parametrize("option", ["--share=0", "--share=101", "--margin=0", "--max-age=0", "--since=yesterday", "--live=2.1.0"])
def test_an_option_that_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        shadow.main(["predictions.jsonl", "--candidate", CANDIDATE, option])
    assert (ended.value.code, "error: " in capsys.readouterr().err) == (2, True)


def test_what_is_older_than_asked_for_is_left_out(judged: Judged) -> None:
    since = (START + timedelta(seconds=50)).isoformat()
    _, report = judged(both(1000), f"--since={since}")
    assert (report["compared"], report["missing"]) == (500, 0)


def test_the_documented_commands_compare_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "predictions.jsonl", both(2_000))
    labels(tmp_path / "labels.csv", dict.fromkeys(range(100), "cat"))
    for command in (one for one in commands("docs/shadow.md") if one.startswith(".venv/bin/petclf shadow ")):
        with pytest.raises(SystemExit) as ended:
            shadow.main(shlex.split(command)[2:])
        assert (ended.value.code, capsys.readouterr().out.split(",")[0]) == (3, f"{CANDIDATE} beside {LIVE}")
