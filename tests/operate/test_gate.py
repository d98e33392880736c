"""The gate: what decides whether a candidate may go live. Where something is not known, it may not."""

import copy
import dataclasses
import math
import types
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from operate import watch
from operate.client import UsageError
from operate.gate import FILE, judge, read_rules
from operate.labelled import Answered
from operate.store import Stored
from operate.verify import Pair, compare, worse_p

RULES = read_rules()
NOW = datetime(2026, 11, 26, 12, tzinfo=timezone.utc)
SIDE = {
    "version": "2.0.0", "sha256": "a" * 64, "answered_share": 1.0, "accuracy": 0.98, "calibration_error": 0.01, "unsure": 0.08,
    "unlike": 0.02, "p50": 20.0,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "time": NOW.isoformat(), "photos": 500, "fewest_of_a_label": 240, "worse_p": 0.5, "live": dict(SIDE),
    "candidate": {**SIDE, "version": "2.1.0"},
}  # fmt: skip
FIGURES = [("time",), ("photos",), ("fewest_of_a_label",), ("worse_p",), *(
    (who, name) for who in ("live", "candidate") for name in ("answered_share", "accuracy", "unsure", "unlike", "p50")
), ("candidate", "calibration_error")]  # fmt: skip


def changed(*path: str, to: Any) -> dict[str, Any]:
    found = copy.deepcopy(GOOD)
    *way, last = path
    place = found
    for name in way:
        place = place[name]
    place[last] = to
    return found


def test_an_equal_candidate_passes() -> None:
    assert judge(GOOD, RULES["verify"], NOW) == []


@pytest.mark.parametrize(
    ("path", "to", "reason"),
    [
        (("photos",), 199, "photos is 199, must be at least 200"),
        (("fewest_of_a_label",), 0, "photos of each label is 0, must be at least 20"),
        (("time",), (NOW - timedelta(hours=169)).isoformat(), "hours is 169, must be at most 168"),
        (("time",), (NOW + timedelta(hours=2)).isoformat(), "hours is not known, must be at most 168"),
        (("candidate", "answered_share"), 0.98, "answered is 0.98, must be at least 0.99"),
        (("live", "answered_share"), None, "answered is not known, must be at least 0.99"),
        (("candidate", "accuracy"), 0.96, "accuracy loss is 0.02, must be at most 0.01"),
        (("worse_p",), 0.049, "worse p is 0.049, must be at least 0.05"),
        (("candidate", "calibration_error"), 0.06, "calibration error is 0.06, must be at most 0.05"),
        (("candidate", "unsure"), 0.14, "unsure rise is 0.06, must be at most 0.05"),
        (("candidate", "unlike"), 0.08, "unlike rise is 0.06, must be at most 0.05"),
        (("candidate", "p50"), 31.0, "latency ratio is 1.55, must be at most 1.5"),
    ],
)
def test_each_rule_refuses_for_its_own_reason(path: tuple[str, ...], to: Any, reason: str) -> None:
    assert judge(changed(*path, to=to), RULES["verify"], NOW) == [reason]


@given(path=st.sampled_from(FIGURES), to=st.sampled_from([None, math.nan, "", "many", {}, [], True]))
def test_a_figure_that_is_not_known_never_passes(path: tuple[str, ...], to: Any) -> None:
    assert judge(changed(*path, to=to), RULES["verify"], NOW) != []


@given(st.sets(st.sampled_from(FIGURES), min_size=1))
def test_a_comparison_in_which_something_is_missing_never_passes(missing: set[tuple[str, ...]]) -> None:
    found = copy.deepcopy(GOOD)
    for path in missing:
        place = found if len(path) == 1 else found[path[0]]
        del place[path[-1]]
    assert judge(found, RULES["verify"], NOW) != []


@pytest.mark.parametrize("nothing", [{}, {"live": None, "candidate": None}, {"time": NOW.isoformat()}])
def test_nothing_at_all_never_passes(nothing: dict[str, Any]) -> None:
    assert len(judge(nothing, RULES["verify"], NOW)) >= len(RULES["verify"]) - 1


def pairs(outcomes: list[tuple[str, str, str]]) -> list[Pair]:
    """Pairs of answers: (truth, what the live version says, what the candidate says)."""

    def answer(number: int, truth: str, label: str, archive: str) -> Answered:
        other = {"cat": "dog", "dog": "cat"}[label]
        return Answered(f"{number}.jpg", truth, label, {label: 0.98, other: 0.02}, milliseconds=20.0, archive=archive)

    return [
        Pair(answer(number, truth, live, "l" * 64), answer(number, truth, candidate, "c" * 64))
        for number, (truth, live, candidate) in enumerate(outcomes)
    ]


def stored(version: str, digest: str) -> Stored:
    archive = dataclasses.make_dataclass("Known", ["name", "version"])("petclf", version)
    return Stored(archive, digest * 64)


def compared(outcomes: list[tuple[str, str, str]], **wrong: str) -> dict[str, Any]:
    found = compare(pairs(outcomes), stored("2.0.0", "l"), stored("2.1.0", wrong.get("candidate", "c")), [])
    return {**found, "time": NOW.isoformat()}


@pytest.mark.parametrize(
    ("bytes_of_workers", "told"), [([400_000_000, 100_000_000], 500.0), ([400_000_000, 0], None), ([], None)]
)
def test_memory_that_torchserve_has_not_looked_at_is_unknown(bytes_of_workers: list[int], told: float | None) -> None:
    replicas = [types.SimpleNamespace(memory=lambda *_, size=size: size) for size in bytes_of_workers]
    assert compare([], stored("2.0.0", "l"), stored("2.1.0", "c"), replicas)["candidate"]["memory_mb"] == told


def test_equal_answers_about_enough_photos_pass() -> None:
    assert judge(compared([("cat", "cat", "cat"), ("dog", "dog", "dog")] * 100), RULES["verify"], NOW) == []


@pytest.mark.parametrize(
    "outcomes", [[], [("cat", "cat", "cat")], [("cat", "cat", "cat")] * 500], ids=["none", "one", "one label"]
)
def test_too_few_photos_and_a_single_label_never_pass(outcomes: list[tuple[str, str, str]]) -> None:
    assert judge(compared(outcomes), RULES["verify"], NOW) != []


def test_answers_of_another_archive_than_the_candidates_never_pass() -> None:
    outcomes = [("cat", "cat", "cat"), ("dog", "dog", "dog")] * 100
    assert judge(compared(outcomes, candidate="x"), RULES["verify"], NOW) == ["answered is not known, must be at least 0.99"]


def test_a_comparison_counts_who_is_right_and_names_the_photos_that_differ() -> None:
    found = compared([("cat", "cat", "cat"), ("cat", "cat", "dog"), ("dog", "cat", "dog"), ("dog", "cat", "cat")])
    assert {name: found[name] for name in ("both_right", "only_live_right", "only_candidate_right", "both_wrong", "agreement")} == {
        "both_right": 1, "only_live_right": 1, "only_candidate_right": 1, "both_wrong": 1, "agreement": 0.5,
    }  # fmt: skip
    assert [(one["photo"], one["live"], one["candidate"]) for one in found["differences"]] == [
        ("1.jpg", "cat", "dog"),
        ("2.jpg", "cat", "dog"),
    ]


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_p_value_is_the_exact_sign_tests(only_live: int, only_candidate: int) -> None:
    exact = binomtest(only_candidate, only_live + only_candidate, 0.5, "less").pvalue if only_live + only_candidate else 1.0
    assert worse_p(only_live, only_candidate) == pytest.approx(exact, rel=1e-9)


def test_a_gate_in_which_a_rule_is_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(FILE.read_text().replace("  worse_p_at_least", "  worse_p_at_lest"))
    with pytest.raises(UsageError, match="verify must have exactly photos_at_least"):
        read_rules(path)
    path.write_text(FILE.read_text().replace("photos_at_least: 200", "photos_at_least: .nan"))
    with pytest.raises(UsageError, match="photos_at_least must be a number"):
        read_rules(path)


# --- after the switch

BEFORE = {"predictions": 100, "unsure": 10, "mean_milliseconds": 5.0}


@pytest.mark.parametrize(
    ("change", "users", "said"),
    [
        ({"photos": 500, "unsure": 60, "failed": 0, "seconds": 2.5}, 480, ""),
        ({"photos": 500, "unsure": 60, "failed": 4, "seconds": 2.5}, 500, ""),
        ({"photos": 20, "unsure": 20, "failed": 0, "seconds": 9.0}, 20, ""),  # too few users to judge shares
        ({"photos": 0, "unsure": 0, "failed": 5, "seconds": 0}, 0, "5 of 5 photos could not be answered"),
        ({"photos": 95, "unsure": 9, "failed": 6, "seconds": 0.5}, 94, "6 of 100 photos could not be answered"),
        (
            {"photos": 60, "unsure": 50, "failed": 0, "seconds": 0.3},
            60,
            "it is unsure of 83% of 60 photos; the version before was of 10%",
        ),
        (
            {"photos": 60, "unsure": 6, "failed": 0, "seconds": 6.0},
            60,
            "a photo takes 100 ms; with the version before it took 5 ms",
        ),
    ],
)
def test_a_version_is_judged_by_what_its_workers_have_counted(change: dict[str, float], users: float, said: str) -> None:
    assert watch.judge(BEFORE, {**change, "users": users}, RULES["watch"]) == said
