"""Photos whose labels are known, what a server says about them, and the figures of it."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from operate.client import Client, UsageError
from operate.labelled import Answered, Mistake, Photo, ask_about, figures, labelled_photos
from tests.operate.standin import ARCHIVE, standing_in, write_photos


def said(
    truth: str, label: str, confidence: float = 0.9, because: str | None = None, photo: str = "", milliseconds: float = 5.0
) -> Answered:
    """Return an answer of a model of cats and dogs."""
    probabilities = {name: confidence if name == label else round(1 - confidence, 6) for name in ("cat", "dog")}
    return Answered(
        photo or f"{truth}/{label}-{confidence}.jpg", truth, label, probabilities, because, None, milliseconds, "2.0.0", ARCHIVE
    )


def refused(truth: str, photo: str = "broken.jpg") -> Answered:
    return Answered(photo, truth, error="not a readable image")


def test_a_folder_has_one_sub_folder_a_label(tmp_path: Path) -> None:
    write_photos(tmp_path, cat__2={}, cat__1={}, cat__series__3={}, Dog__1={}, **{".hidden__1": {}, "cat__.hidden": {}})
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "empty").mkdir()
    assert labelled_photos(tmp_path) == [
        Photo("Dog/1.jpg", tmp_path / "Dog" / "1.jpg", "dog"),  # labels are written as training writes them
        Photo("cat/1.jpg", tmp_path / "cat" / "1.jpg", "cat"),
        Photo("cat/2.jpg", tmp_path / "cat" / "2.jpg", "cat"),
        Photo("cat/series/3.jpg", tmp_path / "cat" / "series" / "3.jpg", "cat"),
    ]


def test_a_csv_names_photos_relative_to_itself(tmp_path: Path) -> None:
    write_photos(tmp_path, shelter__a={}, b={})
    table = tmp_path / "labels.csv"
    table.write_text(f'\ufeffcamera,photo,label\n1,shelter/a.jpg," Éte\u0301 "\n\n2,{tmp_path}/b.jpg,DOG\n', encoding="utf-8")
    assert labelled_photos(table) == [
        Photo("shelter/a.jpg", tmp_path / "shelter" / "a.jpg", "Été"),
        Photo(f"{tmp_path}/b.jpg", tmp_path / "b.jpg", "dog"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("photo,label\n1.jpg,cat\n./1.jpg,cat\n", "{table}, line 3: ./1.jpg is in line 2 too; name each photo once"),
        ("photo,label\n1.jpg,\n", "{table}, line 2: the label is empty"),
        ("photo,label\n1.jpg\n", "{table}, line 2: the label is empty"),
        ("photo,label\n,cat\n", "{table}, line 2: the photo is empty"),
        ("photo,label\n\n2.jpg,cat\n", "{table}, line 3: no photo at {folder}/2.jpg"),
        ("photo;label\n1.jpg;cat\n", "{table} has no column label and no column photo; its first line is photo;label"),
        ("photo,class\n1.jpg,cat\n", "{table} has no column label; its first line is photo,class"),
        ("", "{table} has no column label and no column photo; its first line is empty"),
        (
            "photo,label\n",
            "no labelled photo in {table}; it needs one sub-folder a label, or a CSV with the columns photo, label",
        ),
        (b"photo,label\n\xff.jpg,cat\n", "{table} is no text in UTF-8; save it as CSV in UTF-8"),
        ("photo,label\n" + "x" * 200_000 + ",cat\n", "{table} is no CSV: field larger than field limit (131072)"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why_and_where(tmp_path: Path, content: str | bytes, told: str) -> None:
    write_photos(tmp_path, **{"1": {}})
    table = tmp_path / "labels.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError) as raised:
        labelled_photos(table)
    assert str(raised.value) == told.format(table=table, folder=tmp_path)


def test_photos_without_a_label_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path, cat__1={}, a={}, b={})
    with pytest.raises(UsageError) as raised:
        labelled_photos(tmp_path)
    assert str(raised.value) == (
        f"2 of the 3 photos in {tmp_path} have no label, the first is {tmp_path}/a.jpg; "
        "move them into a folder that is called like their label"
    )


def test_an_empty_folder_and_a_missing_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^no labelled photo in {tmp_path}; it needs one sub-folder a label"):
        labelled_photos(tmp_path)
    with pytest.raises(UsageError, match=f"^no folder and no CSV at {tmp_path}/missing$"):
        labelled_photos(tmp_path / "missing")


@pytest.fixture
def client() -> Iterator[Client]:
    with standing_in() as address:
        yield Client(address, retries=0)


def test_answers_come_in_order_with_everything_that_the_server_said(client: Client, tmp_path: Path) -> None:
    write_photos(
        tmp_path, cat__1={"cat": 0.9, "dog": 0.1, "unlike": 0.25}, cat__2={"status": 400},
        cat__3={"cat": 0.4, "dog": 0.6, "unsure_because": "close_call", "model": {"version": "1.1.0"}, "request_id": "seven"},
    )  # fmt: skip
    first, second, third = ask_about(client, labelled_photos(tmp_path), 2)
    assert first.milliseconds > 0
    assert third.milliseconds > 0
    assert replace(first, milliseconds=1.0) == Answered(
        "cat/1.jpg", "cat", "cat", {"cat": 0.9, "dog": 0.1}, None, 0.25, 1.0, "1.0.0", ARCHIVE, "from-the-server"
    )
    assert second == Answered("cat/2.jpg", "cat", error="refused with 400")
    assert replace(third, milliseconds=1.0) == Answered(
        "cat/3.jpg", "cat", "dog", {"cat": 0.4, "dog": 0.6}, "close_call", None, 1.0, "1.1.0", ARCHIVE, "seven"
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"label": "cat"},
        {"probabilities": None},
        {"cat": 0.9, "label": "dog"},
        {"cat": 0.9, "dog": math.nan},
        {"cat": 1.5},
        {"cat": 0.9, "label": ["cat"]},
    ],
)
def test_an_answer_that_is_no_prediction_is_an_error(client: Client, tmp_path: Path, answer: dict[str, Any]) -> None:
    write_photos(tmp_path, cat__1=answer)
    assert list(ask_about(client, labelled_photos(tmp_path), 1)) == [
        Answered("cat/1.jpg", "cat", error="the server's answer is no prediction; is it a petclf server?")
    ]


def test_a_photo_that_goes_away_stops_no_other(client: Client, tmp_path: Path) -> None:
    photos = labelled_photos(write_photos(tmp_path, cat__1={"cat": 0.9}, cat__2={"cat": 0.9}))
    photos[0].path.unlink()
    first, second = ask_about(client, photos, 1)
    assert first.error == f"cannot use {tmp_path}/cat/1.jpg: No such file or directory"
    assert second.is_right


def test_a_server_that_is_away_ends_it_at_once(tmp_path: Path) -> None:
    photos = labelled_photos(write_photos(tmp_path, cat__1={}, cat__2={}))
    with pytest.raises(UsageError) as raised:
        list(ask_about(Client("127.0.0.1:9", retries=0), photos, 1))
    assert str(raised.value) == "http://127.0.0.1:9: the server cannot be reached: Connection refused; is it running?"


def test_the_figures_of_some_answers() -> None:
    answers = [
        *(said("cat", "cat", 0.95, photo=f"c{number}", milliseconds=number) for number in range(1, 7)),
        said("cat", "dog", 0.7, photo="c7", milliseconds=7),
        said("cat", "dog", 0.6, "close_call", photo="c8", milliseconds=8),
        said("dog", "dog", 0.75, photo="d1", milliseconds=100),
        said("dog", "dog", 0.55, "unlike_training_photos", photo="d2", milliseconds=9),
        refused("dog"),
    ]
    assert json.loads(json.dumps(asdict(figures(answers)), allow_nan=False)) == {
        "photos": 11,
        "answered": 10,
        "errors": 1,
        "measured": 10,
        "labels": ["cat", "dog"],
        "unknown_labels": {},
        "labels_without_photos": [],
        "accuracy": {"share": 0.8, "interval": [pytest.approx(0.490162), pytest.approx(0.943318)], "count": 8, "photos": 10},
        "balanced_accuracy": 0.875,
        "confusion": {"cat": {"cat": 6, "dog": 2}, "dog": {"cat": 0, "dog": 2}},
        "by_label": {
            "cat": {"right": wilson(6, 8), "unsure": wilson(1, 8), "unlike": wilson(0, 8)},
            "dog": {"right": wilson(2, 2), "unsure": wilson(1, 2), "unlike": wilson(1, 2)},
        },
        # bins of 0.0667: 0.55 | 0.6 | 0.7 and 0.75 are in 10 and 11 | 0.95
        "calibration_error": pytest.approx((0.45 + 0.6 + 0.7 + 0.25 + 6 * 0.05) / 10),
        "reliability": [
            {"confidence": 0.55, "accuracy": 1.0, "photos": 1},
            {"confidence": 0.6, "accuracy": 0.0, "photos": 1},
            {"confidence": 0.7, "accuracy": 0.0, "photos": 1},
            {"confidence": 0.75, "accuracy": 1.0, "photos": 1},
            {"confidence": pytest.approx(0.95), "accuracy": 1.0, "photos": 6},
        ],
        "unsure": wilson(2, 10),
        "sure": wilson(7, 8),
        "unlike": wilson(1, 10),
        "milliseconds": {"p50": 5, "p95": 100, "p99": 100},
        "versions": {"2.0.0": 10},
        "archives": {ARCHIVE: 10},
        "mistakes": [
            {"photo": "c7", "truth": "cat", "label": "dog", "confidence": 0.7, "unsure_because": None},
            {"photo": "c8", "truth": "cat", "label": "dog", "confidence": 0.6, "unsure_because": "close_call"},
        ],
        "not_answered": [{"photo": "broken.jpg", "truth": "dog", "error": "not a readable image"}],
    }


WILSON = {  # computed with scipy.stats.binomtest(count, photos).proportion_ci(0.95, "wilson")
    (6, 8): (0.409275, 0.928521), (1, 8): (0.022417, 0.470888), (0, 8): (0.0, 0.324408), (2, 2): (0.34238, 1.0),
    (1, 2): (0.094531, 0.905469), (2, 10): (0.056682, 0.509838), (7, 8): (0.529112, 0.977583), (1, 10): (0.017876, 0.40415),
}  # fmt: skip


def wilson(count: int, photos: int) -> dict[str, Any]:
    low, high = WILSON[count, photos]
    return {
        "share": count / photos,
        "interval": [pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6)],
        "count": count,
        "photos": photos,
    }


def test_a_label_that_the_model_does_not_know_is_not_counted_as_wrong_but_shown() -> None:
    found = figures([said("cat", "cat"), said("horse", "dog", 0.6, "unlike_training_photos"), said("horse", "cat", photo="h2")])
    assert (found.measured, found.accuracy.share, found.unsure.count, found.unlike.count) == (1, 1.0, 0, 0)
    assert (found.unknown_labels, found.labels_without_photos, found.mistakes) == ({"horse": 2}, ["dog"], [])
    assert found.confusion == {"cat": {"cat": 1, "dog": 0}, "horse": {"cat": 1, "dog": 1}}
    assert (found.by_label["horse"].right.count, found.by_label["horse"].unlike.count) == (0, 1)


def test_of_one_label_there_is_no_balanced_accuracy() -> None:
    found = figures([said("cat", "cat"), said("cat", "dog")])
    assert (found.accuracy.share, found.balanced_accuracy, found.labels_without_photos) == (0.5, None, ["dog"])


def test_answers_of_two_versions_are_told_apart() -> None:
    other = replace(said("dog", "dog"), version="2.1.0", archive="")
    found = figures([said("cat", "cat"), other])
    assert (found.versions, found.archives) == ({"2.0.0": 1, "2.1.0": 1}, {ARCHIVE: 1, "unknown": 1})


@pytest.mark.parametrize("answers", [[], [refused("cat")], [said("horse", "cat")]])
def test_where_nothing_can_be_measured_the_figures_are_null(answers: list[Answered]) -> None:
    written = json.loads(json.dumps(asdict(figures(answers)), allow_nan=False))
    nothing = {"share": None, "interval": None, "count": 0, "photos": 0}
    assert [written[name] for name in ("accuracy", "unsure", "sure", "unlike")] == [nothing] * 4
    assert (written["balanced_accuracy"], written["calibration_error"], written["reliability"]) == (None, None, [])
    assert (written["milliseconds"] is None) == (not written["answered"])


def test_the_mistakes_come_with_the_most_confident_first() -> None:
    wrong = [said("cat", "dog", 0.6, photo="b"), said("cat", "dog", 0.9, photo="c"), said("cat", "dog", 0.6, photo="a")]
    assert figures([*wrong, said("cat", "cat")]).mistakes == [
        Mistake("c", "cat", "dog", 0.9, None),
        Mistake("a", "cat", "dog", 0.6, None),
        Mistake("b", "cat", "dog", 0.6, None),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_answers_does_not_matter(seed: int) -> None:
    chance = random.Random(seed)
    answers = [
        said(chance.choice(["cat", "dog", "horse"]), chance.choice(["cat", "dog"]), chance.uniform(0.5, 1), photo=str(number))
        for number in range(chance.randrange(40))
    ]
    assert figures(chance.sample(answers, len(answers))) == figures(answers)
