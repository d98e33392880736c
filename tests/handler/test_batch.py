"""A batch of strangers: each gets its own right answer, whoever its neighbours are."""

import base64
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.decoding import run_lengths
from handler.batch import Answerer
from handler.classifier import CLOSE, Classifier
from handler.golden import golden_photos
from handler.lanes import Lanes
from handler.model_file import TOLERANCE
from handler.petclf_handler import to_request
from handler.photo_input import decode_photo
from handler.question import Request
from tests.drawing import draw_photo, encoded
from tests.handler.asking import EXPLAIN, as_json, content, form, get, lasting, raw

PHOTO = encoded(draw_photo("cat", 1, (320, 240)))
OTHER = encoded(draw_photo("dog", 2, (200, 300)), "PNG")
DEAR = encoded(Image.new("RGB", (3200, 2500)), "PNG")  # 0.17 seconds


@pytest.fixture(autouse=True)
def enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may be slow."""
    monkeypatch.setattr("handler.batch.READ_SECONDS", 60.0)


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
        because = "close_call" if abs(cat - dog) < CLOSE else "low_confidence"
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
    [
        (0.0, [0.999, 0.001], None),
        (0.0, [0.64, 0.36], "close_call"),
        (0.0, [0.36, 0.64], "close_call"),
        (0.0, [0.7, 0.3], "low_confidence"),
        (1.0, [0.999, 0.001], "unlike_training_photos"),
        (1.0, [0.55, 0.45], "unlike_training_photos"),
    ],
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
    assert replies[0].headers == {"Retry-After": "1", "x-petclf-refusal": "out_of_time"}
    assert dict(outcome.refused) == {"out_of_time": 1}


def test_what_the_gateway_says_of_a_wait_counts_more_than_how_long_it_may_have_been(answerer: Answerer) -> None:
    late, fresh, unknown = (replace(raw(PHOTO), waited=waited) for waited in (6.1, 0.2, None))
    replies, _ = answerer.answer([late, fresh, unknown], waited=6.1)
    assert [reply.status for reply in replies] == [503, 200, 503]


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


def test_a_dear_request_gives_way_and_the_cheap_ones_beside_it_are_answered(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_small_ones_only(photo: Image.Image, size: int) -> torch.Tensor:
        assert photo.width < 1000
        return torch.zeros(3, size, size, dtype=torch.uint8)

    monkeypatch.setattr("handler.batch.to_square", read_small_ones_only)
    replies, outcome = answerer.answer([raw(PHOTO), raw(DEAR), raw(b"no photo"), get()])

    assert [reply.status for reply in replies] == [200, 503, 400, 200]
    assert (content(replies[1])["error"]["code"], replies[1].headers) == (
        "dear_request",
        {"Retry-After": "2", "x-petclf-refusal": "dear_request"},
    )
    assert dict(outcome.refused) == {"dear_request": 1, "not_an_image": 1}


def test_a_phones_photo_with_a_second_one_in_its_file_is_answered(answerer: Answerer) -> None:
    photo = draw_photo("cat", 1, (320, 240))
    several = encoded(photo, "MPO", save_all=True, append_images=[photo])
    assert [reply.status for reply in answers(answerer, [raw(several)])] == [200]


def test_dear_requests_alone_are_answered(answerer: Answerer) -> None:
    assert [reply.status for reply in answers(answerer, [raw(DEAR)] * 2)] == [200, 200]


def test_the_dear_requests_of_a_batch_are_answered_until_it_is_full(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handler.cost.MOST_SECONDS", 0.25)
    replies = answers(answerer, [raw(DEAR)] * 3)
    assert [reply.status for reply in replies] == [200, 503, 503]


def test_while_another_worker_does_dear_work_this_one_does_cheap_work_only(classifier: Classifier, tmp_path: Path) -> None:
    other, ours = Lanes(tmp_path, 1), Lanes(tmp_path, 1)
    answerer = Answerer(classifier, classifier.sizes(8), None, frozenset(), ours)

    assert other.take()
    assert [reply.status for reply in answers(answerer, [raw(DEAR)] * 2)] == [503, 503]
    assert [reply.status for reply in answers(answerer, [raw(PHOTO)])] == [200]
    other.leave()
    assert [reply.status for reply in answers(answerer, [raw(DEAR)])] == [200]
    assert other.take()  # for the lane is free again


def test_the_lane_is_free_again_when_the_handler_fails(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer(classifier, classifier.sizes(8), None, frozenset(), Lanes(tmp_path, 1))
    monkeypatch.setattr(answerer, "reply", None)
    with pytest.raises(TypeError):
        answerer.answer([raw(DEAR)])
    assert Lanes(tmp_path, 1).take()


def test_json_that_takes_long_to_parse_gives_way_unparsed(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    large = raw(json.dumps({"image": "A" * 6_000_000}).encode(), {"Content-Type": "application/json"})
    with monkeypatch.context() as parsing_fails:
        parsing_fails.setattr("handler.question.json.loads", None)
        replies = answers(answerer, [raw(PHOTO), large])
    assert [(reply.status, content(reply).get("error", {}).get("code")) for reply in replies] == [
        (200, None),
        (503, "dear_request"),
    ]
    [alone] = answers(answerer, [large])
    assert (alone.status, content(alone)["error"]["code"]) == (400, "not_an_image")


def test_many_photos_in_one_request_cost_what_they_cost_together(answerer: Answerer) -> None:
    small, large = (base64.b64encode(data).decode() for data in (PHOTO, DEAR))
    fits, too_many = (
        answers(answerer, [as_json({"instances": [small] * 32})])[0],
        answers(answerer, [as_json({"instances": [large] * 9})])[0],
    )
    beside = answers(answerer, [raw(PHOTO), as_json({"instances": [small] * 32})])

    assert (fits.status, len(content(fits)["predictions"])) == (200, 32)
    assert (too_many.status, content(too_many)["error"]["code"]) == (422, "too_many_instances")
    assert content(too_many)["error"]["message"].startswith(
        "its photos would take about 1.5 seconds to read; the limit is 1 a request"
    )
    assert [reply.status for reply in beside] == [200, 503]


def test_a_photo_that_would_take_too_long_is_refused_in_its_place(answerer: Answerer) -> None:
    large = base64.b64encode(encoded(Image.new("LA", (6000, 6000)), "PNG")).decode()
    [reply] = answers(answerer, [as_json({"instances": [base64.b64encode(PHOTO).decode(), large]})])
    first, second = content(reply)["predictions"]
    assert (first["label"] in ("cat", "dog"), second["error"]["code"]) == (True, "too_many_pixels")


def test_photos_at_addresses_are_fetched_and_answered_in_their_place(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {"https://cdn.example.org/a": PHOTO, "https://cdn.example.org/b": b"no photo"}
    monkeypatch.setattr(answerer.fetcher, "hosts", frozenset({"cdn.example.org"}))
    monkeypatch.setattr("handler.fetch.fetch", lambda url, *_: sent[url])
    here = base64.b64encode(PHOTO).decode()
    instances = [here, *({"url": url} for url in sent), {"url": "https://elsewhere.example.org/"}]
    [reply] = answers(answerer, [as_json({"instances": instances})])

    local, good, broken, foreign = content(reply)["predictions"]
    assert local["probabilities"] == good["probabilities"]
    assert (broken["error"]["code"], foreign["error"]["code"]) == ("not_an_image", "url_not_allowed")


def test_an_address_gives_way_to_what_is_here(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answerer.fetcher, "hosts", frozenset({"cdn.example.org"}))
    monkeypatch.setattr("handler.fetch.fetch", None)
    replies = answers(answerer, [as_json({"url": "https://cdn.example.org/a"}), raw(PHOTO)])
    assert [reply.status for reply in replies] == [503, 200]


def test_a_photo_that_takes_longer_than_it_seemed_is_stopped(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours before it are answered, and those after it as far as time is left."""
    endless = run_lengths(Image.new("RGB", (16, 16)))[:1078] + b"\0\0" * 4_900_000
    monkeypatch.setattr("handler.cost.IN_RUNS", (0, 0))
    monkeypatch.setattr("handler.batch.READ_SECONDS", 1.0)
    replies = answers(answerer, [raw(PHOTO), raw(endless)])
    assert [(reply.status, content(reply).get("error", {}).get("code")) for reply in replies] == [
        (200, None),
        (503, "out_of_time"),
    ]
