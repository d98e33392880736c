"""The smoke test on a server that other clients ask as well."""

import json
from typing import Any

import pytest

from scripts import smoke_test
from scripts.smoke_test import SmokeError, Target


def answer(cat: float) -> dict[str, Any]:
    return {"probabilities": {"cat": cat, "dog": 1 - cat}}


def target_that_says(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Target:
    target, left = Target("127.0.0.1:1", "petclf", None), iter(answers)
    monkeypatch.setattr(target, "ask", lambda *_, **__: json.dumps(next(left)).encode())
    return target


@pytest.mark.parametrize("other", [0.794018, 0.794019, 0.8])
def test_a_form_may_be_rounded_otherwise_than_its_photo_alone(monkeypatch: pytest.MonkeyPatch, other: float) -> None:
    target = target_that_says(monkeypatch, *[answer(0.794018), answer(other)] * 2)
    assert smoke_test.form(target) == "a file of a hundred bytes, and one of more than 64 KB"


def test_a_form_that_is_read_as_another_photo_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_that_says(monkeypatch, answer(0.9), answer(0.4))
    with pytest.raises(SmokeError, match=r"a form of \d+ bytes is answered .*0.9.*, its photo alone .*0.4"):
        smoke_test.form(target)


@pytest.mark.parametrize(("third", "passes"), [(0.794019, True), (0.4, False)])
def test_many_photos_are_answered_each_in_its_place(monkeypatch: pytest.MonkeyPatch, third: float, passes: bool) -> None:
    said = {"predictions": [answer(0.794018), {"error": {"code": "bad_request"}}, answer(third)]}
    assert smoke_test.attempt(smoke_test.many, target_that_says(monkeypatch, said))[0] == passes
