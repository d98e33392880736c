"""A batch of strangers: each gets its own right answer, whoever its neighbours are."""

import io
import json
import random
from typing import Any

import pytest
import torch
from PIL import Image

from handler.batch import Answerer
from handler.classifier import Classifier
from handler.golden import golden_photos
from handler.model_file import TOLERANCE
from handler.petclf_handler import to_request
from handler.photo_input import decode_photo
from handler.question import Request
from tests.drawing import draw_photo, encoded
from tests.handler.asking import EXPLAIN, as_json, content, form, get, lasting, raw

PHOTO = encoded(draw_photo("cat", 1, (320, 240)))
OTHER = encoded(draw_photo("dog", 2, (200, 300)), "PNG")


def answers(answerer: Answerer, requests: list[Request]) -> list[Any]:
    return answerer.answer(requests)[0]


def test_an_answer_is_whole(answerer: Answerer, classifier: Classifier) -> None:
    [reply] = answers(answerer, [raw(PHOTO, id="seven")])

    with torch.inference_mode():
        probabilities, unlike = classifier.model(decode_photo(PHOTO, classifier.size)[None])
    cat, dog = (round(value, 6) for value in probabilities[0].tolist())
    thresholds = classifier.metadata["thresholds"]
    because = "unlike_training_photos" if unlike.item() > thresholds["unlike_above"] else None
    if because is None and max(cat, dog) < thresholds["unsure_below"]:
        because = "close_call"
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert lasting(reply) == {
        "label": "cat" if cat > dog else "dog",
        "confidence": max(cat, dog),
        "probabilities": {"cat": cat, "dog": dog},
        "unsure": because is not None,
        "unsure_because": because,
        "model": {"name": "petclf", "version": classifier.metadata["version"]},
        "request_id": "seven",
    }
    assert set(content(reply)["milliseconds"]) == {"decode", "model"}


def test_the_recorded_answers_of_the_golden_photos_are_given(answerer: Answerer, classifier: Classifier) -> None:
    for photo, golden in zip(golden_photos(classifier.size), classifier.metadata["golden"], strict=True):
        buffer = io.BytesIO()
        Image.fromarray(photo.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        [reply] = answers(answerer, [raw(buffer.getvalue())])
        assert list(content(reply)["probabilities"].values()) == pytest.approx(
            golden["probabilities"], abs=TOLERANCE[classifier.form]
        )


@pytest.mark.parametrize(
    ("unlike", "row", "because"),
    [(0.0, [0.999, 0.001], None), (0.0, [0.55, 0.45], "close_call"), (1.0, [0.999, 0.001], "unlike_training_photos")],
)
def test_unsure_has_its_reason(classifier: Classifier, unlike: float, row: list[float], because: str | None) -> None:
    assert classifier.judge(row, unlike).unsure_because == because


def test_the_evidence_means_the_logit_of_the_label(answerer: Answerer, classifier: Classifier) -> None:
    [reply] = answers(answerer, [raw(PHOTO, EXPLAIN)])

    explanation = content(reply)["explanation"]
    evidence = torch.tensor(explanation["map"])
    photo = decode_photo(PHOTO, classifier.size)[None]
    with torch.inference_mode():
        _, maps = classifier.model.explain(photo)
    assert explanation["label"] == content(reply)["label"]
    assert torch.allclose(evidence, maps[0, classifier.labels.index(explanation["label"])], atol=1e-3)


def test_a_picture_is_sent_to_whoever_accepts_one(answerer: Answerer) -> None:
    [reply] = answers(answerer, [raw(PHOTO, {**EXPLAIN, "Accept": "image/png"})])

    assert (reply.status, reply.content_type) == (200, "image/png")
    with Image.open(io.BytesIO(reply.body)) as picture:
        assert (picture.format, picture.size) == ("PNG", (320, 240))


def test_a_browser_gets_the_page_with_a_policy_that_fits_it(answerer: Answerer) -> None:
    [reply] = answers(answerer, [get({"Accept": "text/html"})])

    assert (reply.status, reply.content_type) == (200, "text/html; charset=utf-8")
    assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert b'name="petclf-model" content="petclf"' in reply.body


def test_a_program_is_told_how_to_ask(answerer: Answerer) -> None:
    [reply] = answers(answerer, [get()])
    assert (reply.status, content(reply)["labels"], list(content(reply)["how_to_ask"])) == (
        200, ["cat", "dog"], ["photo", "form", "json", "why"],
    )  # fmt: skip


def test_every_refusal_has_the_same_shape(answerer: Answerer) -> None:
    replies = answers(
        answerer, [raw(b"", id="1"), raw(b"no photo", id="2"), raw(b"{", id="3"), as_json({"url": "https://a/b"}, id="4")]
    )

    assert [reply.status for reply in replies] == [400, 400, 400, 403]
    assert [set(content(reply)["error"]) for reply in replies] == [{"code", "message", "request_id"}] * 4
    assert [content(reply)["error"]["code"] for reply in replies] == ["empty_body", "not_an_image", "bad_json", "url_not_allowed"]
    assert [content(reply)["error"]["request_id"] for reply in replies] == ["1", "2", "3", "4"]


def test_a_refused_request_is_not_kept_in_memory(answerer: Answerer) -> None:
    """Without the help of Python's search for cycles, which comes late when few objects hold much."""
    import gc
    import weakref

    class Body(bytearray):
        """One that can be watched."""

    for data in (b"[" * 100_000, b'{"instances": ["!"]}', b"no photo"):
        body = Body(data)
        watched = weakref.ref(body)
        gc.disable()
        try:
            answerer.answer([to_request({"body": body}, {"explain": "False", "Content-Type": "application/json"}, "id")])
            del body
            assert watched() is None
        finally:
            gc.enable()


def test_a_bad_instance_is_refused_in_its_place(answerer: Answerer) -> None:
    import base64

    good = base64.b64encode(PHOTO).decode()
    [reply] = answers(answerer, [as_json({"instances": [good, "!", good, base64.b64encode(b"no photo").decode()]})])

    first, second, third, fourth = content(reply)["predictions"]
    assert reply.status == 200
    assert first["probabilities"] == third["probabilities"]
    assert (second["error"]["code"], fourth["error"]["code"]) == ("bad_request", "not_an_image")


@pytest.mark.parametrize("seed", range(10))
def test_an_answer_does_not_depend_on_its_neighbours(answerer: Answerer, seed: int) -> None:
    """500 mixes of good, bad, explained, spoofed and many: each answer is the one it gets alone."""
    kinds = [
        raw(PHOTO),
        raw(OTHER),
        raw(PHOTO, EXPLAIN),
        raw(OTHER, {**EXPLAIN, "Accept": "image/png"}),
        raw(b"no photo"),
        raw(PHOTO[:400]),
        raw(b""),
        get(),
        get({"Accept": "text/html"}),
        raw(OTHER, {"describe": "True"}),
        as_json({"pixels": [[[200, 10, 10]] * 4] * 4}),
        form({"file": OTHER}, {"file": "image/png"}),
        as_json({"url": "http://127.0.0.1/"}),
    ]

    def essence(reply: Any) -> Any:
        if reply.content_type != "application/json":
            return reply.status, reply.content_type, reply.body
        answer = json.loads(json.dumps(lasting(reply)), parse_float=lambda text: round(float(text), 3))
        return reply.status, answer

    alone = [essence(answers(answerer, [request])[0]) for request in kinds]
    chooser = random.Random(seed)
    for _ in range(50):
        chosen = [chooser.randrange(len(kinds)) for _ in range(chooser.randint(2, 8))]
        together = answers(answerer, [kinds[index] for index in chosen])
        for index, reply in zip(chosen, together, strict=True):
            status_and_more = essence(reply)
            assert status_and_more == alone[index]


def test_what_fails_inside_is_our_fault_and_touches_nobody_else(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_on_other(photo: Image.Image, size: int) -> torch.Tensor:
        if photo.format == "PNG":
            raise ZeroDivisionError("a fault of ours")
        return decode_photo(PHOTO, size)

    monkeypatch.setattr("handler.batch.to_square", break_on_other)
    replies, outcome = answerer.answer([raw(PHOTO), raw(OTHER)])

    assert [reply.status for reply in replies] == [200, 500]
    assert content(replies[1])["error"]["code"] == "internal_error"
    assert "a fault of ours" not in replies[1].body.decode()
    assert "a fault of ours" in caplog.text
    assert dict(outcome.refused) == {"internal_error": 1}


def test_a_model_that_fails_is_told_to_each_sender(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(answerer.classifier, "predict", fail)
    replies, _ = answerer.answer([raw(PHOTO), raw(b"no photo"), raw(PHOTO, EXPLAIN)])
    assert [reply.status for reply in replies] == [500, 400, 500]


def test_photos_that_come_too_late_are_refused_not_left_to_be_killed(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handler.batch.READ_SECONDS", 0.0)
    replies, outcome = answerer.answer([raw(PHOTO)])
    assert (replies[0].status, content(replies[0])["error"]["code"]) == (503, "out_of_time")
    assert replies[0].headers == {"Retry-After": "1"}
    assert dict(outcome.refused) == {"out_of_time": 1}


def test_what_is_wrong_in_itself_is_told_even_when_there_is_no_time_left(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.batch.READ_SECONDS", 0.0)
    replies, outcome = answerer.answer([raw(b"{"), raw(b"")])
    assert [(reply.status, content(reply)["error"]["code"]) for reply in replies] == [(400, "bad_json"), (400, "empty_body")]
    assert dict(outcome.refused) == {"bad_json": 1, "empty_body": 1}


def test_an_outcome_that_waits_for_the_recorder_keeps_no_photo(answerer: Answerer) -> None:
    [item] = answerer.answer([raw(PHOTO)])[1].seen
    assert (item.sent, item.picture, item.id) == (b"", b"", "id")


def test_what_may_have_waited_too_long_is_refused_before_a_pixel_is_read(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.batch.to_square", None)
    card = to_request({"body": bytearray()}, {"describe": "True"}, "id")
    replies, outcome = answerer.answer([raw(PHOTO), get(), card], waited=6.1)
    assert [(reply.status, content(reply)["error"]["code"]) for reply in replies] == [(503, "busy")] * 3
    assert dict(outcome.refused) == {"busy": 3}
