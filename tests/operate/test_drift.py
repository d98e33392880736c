"""What is called drift, how sure that is, and since when."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact, ks_2samp

from handler.model_file import read_model_file
from operate.drift import (
    CHANCE,
    STATISTICS,
    WINDOWS,
    Columns,
    Difference,
    DriftError,
    Look,
    ModelReference,
    PhotosBefore,
    findings,
    look,
    since,
)
from operate.drift_words import difference_in_words
from tests.operate.lines import darker, entries, photos

ROOT = Path(__file__).parents[2]
TESTS = len(STATISTICS) * len(WINDOWS)


@pytest.fixture(scope="module")
def reference() -> PhotosBefore:
    return PhotosBefore("the log", Columns.of(photos(entries(1_000))))


@pytest.fixture(scope="module")
def usual() -> list[dict[str, Any]]:
    return entries(1_000, seed=1)


def looked(reference: PhotosBefore | ModelReference, made: list[dict[str, Any]]) -> tuple[Look, Columns]:
    columns = Columns.of(photos(made))
    return look(reference, columns, len(columns)), columns


def found(reference: PhotosBefore | ModelReference, made: list[dict[str, Any]]) -> dict[int, list[str]]:
    seen, _ = looked(reference, made)
    return {window.photos: [one.statistic for one in window.found] for window in seen.windows}


def test_photos_like_the_reference_are_no_drift_and_windows_that_are_not_full_say_so(
    reference: PhotosBefore, usual: list[dict[str, Any]]
) -> None:
    seen, columns = looked(reference, usual)
    verdicts = [(window.photos, window.verdict) for window in seen.windows]
    assert verdicts == [(100, "no drift found"), (1_000, "no drift found"), (10_000, "too little data")]
    assert (seen.verdict, findings(seen, columns)) == ("no drift found", [])


def test_fewer_photos_than_any_window_are_too_little_data(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    assert looked(reference, darker(usual[:99]))[0].verdict == "too little data"
    assert looked(reference, darker(usual[:100]))[0].verdict == "drift"


@pytest.mark.parametrize(
    ("change", "statistics"),
    [
        ({"confidence": 0.6}, ["confidence"]),
        ({"unlike": 0.95}, ["unlike"]),
        ({"label": "dog"}, ["label"]),
        ({"unsure_because": "unlike_training_photos"}, ["unsure"]),
        ({"contrast": 0.1}, ["contrast"]),
        ({"sharpness": 0.01}, ["sharpness"]),
        ({"colourfulness": 0.0}, ["colourfulness"]),
        ({"width": 4032, "height": 3024}, ["width", "height"]),
        ({"bytes": 3_000_000}, ["bytes"]),
        ({"format": "WEBP"}, ["format"]),
    ],
    ids=str,
)
def test_a_change_is_found_in_its_own_statistic_only(
    reference: PhotosBefore, usual: list[dict[str, Any]], change: dict[str, Any], statistics: list[str]
) -> None:
    now = found(reference, [*usual, *entries(100, seed=2, **change)])
    assert now[100] == statistics
    assert set(now[1_000]) <= set(statistics)


def test_drift_says_where_how_much_and_since_when(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    seen, columns = looked(reference, [*usual[:740], *darker(usual[740:])])
    [finding] = findings(seen, columns)

    assert (finding.difference.statistic, finding.window) == ("brightness", 100)
    assert abs(finding.since.photo - 740) <= 5
    assert finding.since.earliest <= 740 <= finding.since.latest
    assert difference_in_words(replace(finding.difference, place=0.36), finding.window) == (
        "brightness fell from 0.463 to 0.28 on average; up to 0.36: 85 % of the last 100, 18 % before"
    )


def test_p_is_scipys_times_the_tests_of_a_look(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    now = [*darker(usual[:40], 0.1), *usual[40:60], *entries(40, seed=9, label="dog")]
    [small, *_] = looked(reference, now)[0].windows
    before, after = (np.array([one["photo"]["brightness"] for one in made]) for made in (entries(1_000), now))
    expected = ks_2samp(before, after, method="asymp").pvalue * TESTS
    assert 1e-4 < expected < 0.9  # one that is cut off at 1 would show nothing
    assert next(one.p for one in small.differences if one.statistic == "brightness") == pytest.approx(expected, rel=1e-9)

    dogs = [sum(one["label"] == "dog" for one in made) for made in (entries(1_000), now)]
    exact = fisher_exact([[dogs[0], 1_000 - dogs[0]], [dogs[1], 100 - dogs[1]]]).pvalue * 2 * TESTS
    assert 1e-4 < exact < 0.9
    assert next(one.p for one in small.differences if one.statistic == "label") == pytest.approx(exact)


def test_one_look_in_ten_thousand_may_err() -> None:
    assert CHANCE == 1e-4
    assert Difference("label", "dog", 0.5, 0.6, 1e-4).found
    assert not Difference("label", "dog", 0.5, 0.6, 1.1e-4).found


def test_a_change_of_fewer_than_5_in_100_photos_is_no_drift_however_certain() -> None:
    reference = PhotosBefore("the log", Columns.of(photos(entries(10_000))))
    made = entries(10_000, seed=3)
    few, more = ([*made[:-count], *entries(count, seed=4, unlike=0.99)] for count in (350, 800))
    certain = [one.p for one in looked(reference, few)[0].windows[2].differences if one.statistic == "unlike"]
    assert certain[0] < CHANCE / 10
    assert found(reference, few[:10_000])[10_000] == []
    assert found(reference, more)[10_000] == ["unlike"]


def test_a_rare_format_is_no_drift(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    """Chi-squared would give 3 GIFs among 100 photos p = 1e-8, where 1,000 photos before held none."""
    assert found(reference, [*usual[:97], *entries(3, format="GIF")]) == {100: [], 1_000: [], 10_000: []}


def test_equal_numbers_everywhere_are_no_drift() -> None:
    same: dict[str, Any] = {"width": 180, "height": 180, "label": "cat", "unsure_because": None, "confidence": 1.0}
    reference = PhotosBefore("the log", Columns.of(photos(entries(1_000, **same))))
    assert found(reference, entries(1_000, seed=5, **same)) == {100: [], 1_000: [], 10_000: []}


def test_the_start_is_the_first_photo_where_all_photos_differ(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    seen, columns = looked(reference, darker(usual))
    assert [one.since.photo for one in findings(seen, columns)] == [0]
    assert findings(seen, columns)[0].since.earliest == 0


def test_photos_after_the_look_do_not_move_the_start(reference: PhotosBefore, usual: list[dict[str, Any]]) -> None:
    columns = Columns.of(photos([*usual[:740], *darker(usual[740:]), *entries(300, seed=2)]))
    [finding] = findings(look(reference, columns, 1_000), columns)
    assert abs(finding.since.photo - 740) <= 5


def test_an_earlier_change_that_has_ended_is_not_the_start() -> None:
    there = np.r_[np.zeros(300), np.ones(150), np.zeros(2_000), np.ones(120)]
    start = since(Difference("brightness", 0.5, 0.05, 0.9, 0.0), 1 - there)
    assert (start.photo, start.earliest <= 2_450 <= start.latest) == (2_450, True)


def model(**changes: Any) -> ModelReference:
    metadata: dict[str, Any] = {
        "name": "petclf", "version": "2.0.0",
        "reference": {
            "brightness": {"mean": 0.46, "quantiles": np.quantile(np.random.default_rng(0).normal(0.46, 0.1, 100_000), LEVELS)},
            "width": {"mean": 180.0, "quantiles": [180.0] * 7},
            "quantile_levels": LEVELS, "label_share": {"cat": 0.5, "dog": 0.5},
        },
        "metrics": {"sure": {"coverage": 0.92}, "test": {"photos": 2_000}},
    }  # fmt: skip
    return ModelReference.of({**metadata, **changes})


LEVELS = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]


def test_the_model_is_compared_in_what_it_describes() -> None:
    assert model().statistics == ("label", "unsure", "brightness", "width")
    assert found(model(), entries(1_000, seed=6, width=180)) == {100: [], 1_000: [], 10_000: []}
    assert found(model(), darker(entries(1_000, seed=6, width=180))) == {100: ["brightness"], 1_000: ["brightness"], 10_000: []}
    assert found(model(), darker(entries(100, seed=6, width=180), -0.2))[100] == ["brightness"]
    assert found(model(), entries(100, seed=6, width=181))[100] == ["width"]
    assert found(model(), entries(100, seed=6, width=179, label="cat"))[100] == ["label", "width"]
    assert found(model(), entries(100, seed=6, width=180, unsure_because="close_call"))[100] == ["unsure"]


def test_wider_spread_is_found_by_the_quantiles() -> None:
    made = entries(1_000, seed=7, width=180)
    for index, one in enumerate(made):
        one["photo"]["brightness"] = 0.46 + 0.2 * (-1) ** index
    seen, columns = looked(model(), made)
    [finding] = findings(seen, columns)
    assert difference_in_words(finding.difference, 100).startswith("brightness is spread differently around 0.46; up to ")


def test_a_models_quantiles_are_as_uncertain_as_their_photos() -> None:
    """The same window is surer against a million photos than against 500: a reference is a sample, too."""
    now = Columns.of(photos(darker(entries(100, seed=8), 0.05))).values["brightness"]
    few, many = (replace(model(), photos=count).compare("brightness", now) for count in (500, 1_000_000))
    assert many.p < few.p
    up_to = int((now <= many.place).sum())
    at_least = binom.sf(up_to - 1, 100, many.before) * 14  # seven quantiles, two sides
    assert many.p == pytest.approx(at_least, rel=0.01)


def test_the_released_model_can_be_compared_with() -> None:
    metadata = read_model_file(ROOT / "pretrained" / "petclf.pt").metadata
    reference = ModelReference.of(metadata)
    assert reference.statistics == tuple(name for name in STATISTICS if name not in ("bytes", "format"))
    assert reference.photos == metadata["metrics"]["test"]["photos"]
    int8 = metadata["int8"]["reference"]["unlike"]["quantiles"]
    assert reference.quantiles["unlike"].tolist() == [round(value, 6) for value in int8]


def test_a_model_that_says_nothing_of_its_photos_is_refused() -> None:
    with pytest.raises(DriftError, match=r"the model petclf 2.0.0 says nothing of its photos .*; use --reference with a log"):
        model(reference={})


def test_unchanged_photos_are_hardly_ever_drift(reference: PhotosBefore) -> None:
    """Of 50 looks at photos that did not change, the smallest corrected p is far from CHANCE."""
    columns = Columns.of(photos(entries(5_000, seed=11)))
    smallest = min(p for end in range(100, 5_001, 100) for p in probabilities(look(reference, columns, end)))
    assert smallest > 10 * CHANCE


def probabilities(seen: Look) -> Iterator[float]:
    return (one.p for window in seen.windows for one in window.differences)
