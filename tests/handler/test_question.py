"""Every way of asking is understood, and what cannot be understood is refused by its name."""

import base64
import json
from typing import Any

import pytest

from handler.petclf_handler import to_request
from handler.question import Address, Kind, Question, Request, read_question
from handler.refusal import Refusal
from tests.handler.asking import EXPLAIN, as_json, form, get, raw

PHOTO = b"\xff\xd8\xff\xe0 some photo \xfb\xef\xbe"  # its base64 has + and =, which forms treat specially
BASE64 = base64.b64encode(PHOTO).decode()
PIXELS = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]


def taken_apart(body: bytes) -> Request:
    """What TorchServe makes of a body in curl's default type: it takes it apart at & and =, and decodes + as a space."""
    row = {}
    for attribute in body.decode().split("&"):
        name, _, value = attribute.replace("+", " ").partition("=")
        row[name] = bytearray(value.encode())
    return to_request(row, {"explain": "False", "Content-Type": "application/x-www-form-urlencoded", "Content-Length": "9"}, "id")


def read(request: Request) -> Question:
    return read_question(request)


@pytest.mark.parametrize(
    "request_",
    [
        raw(PHOTO),
        raw(PHOTO, {"Content-Type": "image/jpeg"}),
        raw(PHOTO, {"content-type": "application/octet-stream"}),
        raw(PHOTO, {"Content-Type": "text/plain"}),
        to_request({"data": bytearray(PHOTO)}, {"explain": "False"}, "id"),
        form({"file": PHOTO}, {"file": "image/jpeg"}),
        form({"anything": PHOTO}, {"anything": "application/octet-stream"}),
        form({"name": b"Rex", "photo": PHOTO}, {"photo": "image/jpeg"}),
        form({"photo": PHOTO}, {}),
        form({"describe": PHOTO}, {"describe": "image/png"}),
        as_json({"image": BASE64}),
        as_json({"image": f"data:image/jpeg;base64,{BASE64}"}),
        as_json({"image": {"b64": BASE64}}),
        as_json({"image": BASE64[:8] + "\n " + BASE64[8:]}),
        as_json({"image": "\t".join(BASE64) + "\r\n"}),
        as_json({"image": BASE64, "note": "anything"}),
        raw(json.dumps({"image": BASE64}).encode()),
        raw(json.dumps({"image": BASE64}).encode(), {"Content-Type": "application/vnd.api+json; charset=utf-8"}),
        taken_apart(json.dumps({"image": BASE64}).encode()),
        taken_apart(json.dumps({"note": "1 & 2 = 3", "image": BASE64}).encode()),
        raw(PHOTO, {"describe": "True"}),
        raw(PHOTO, {"Explain": "True"}),
    ],
)
def test_every_way_of_sending_one_photo_asks_the_same(request_: Request) -> None:
    question = read(request_)
    assert (question.kind, question.photos, question.many) == (Kind.PREDICT, [PHOTO], False)


def test_pixels_become_a_photo() -> None:
    [photo] = read(as_json({"pixels": PIXELS})).photos
    assert [photo.getpixel((x, y)) for y in range(2) for x in range(2)] == [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]  # type: ignore[union-attr]


def test_instances_keep_their_order_and_a_bad_one_its_place() -> None:
    question = read(as_json({"instances": [BASE64, {"image": BASE64}, 7, {"b64": BASE64}, {"url": "https://example.org/x.jpg"}]}))
    assert (question.kind, question.many, len(question.photos)) == (Kind.PREDICT, True, 5)
    assert question.photos[:2] == [PHOTO, PHOTO]
    assert [getattr(photo, "code", None) for photo in question.photos[2:4]] == ["bad_request", "bad_request"]
    assert question.photos[4] == Address("https://example.org/x.jpg")


def test_one_instance_is_still_answered_as_many() -> None:
    assert read(as_json({"instances": [BASE64]})).many is True


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (raw(b""), "empty_body"),
        (get({"Content-Type": "image/jpeg"}), "empty_body"),
        (form({}, {}), "empty_body"),
        (form({"file": b""}, {"file": "image/png"}), "empty_body"),
        (form({"one": PHOTO, "two": PHOTO}, {"one": "image/png", "two": "image/png"}), "bad_request"),
        (taken_apart(b"a=b&c=d"), "unsupported_media_type"),
        (to_request({}, {"Content-Type": "application/x-www-form-urlencoded"}, "id"), "unsupported_media_type"),
        (raw(b"{", {"Content-Type": "application/json"}), "bad_json"),
        (raw(b"{'image': 1}"), "bad_json"),
        (raw(b"\xff\xfe", {"Content-Type": "application/json"}), "bad_json"),
        (raw(b'{"image":' * 100_000), "bad_json"),
        (raw(b"[" * 100_000), "bad_json"),
        (as_json([BASE64]), "bad_request"),
        (as_json("text"), "bad_request"),
        (as_json({}), "bad_request"),
        (as_json({"image": BASE64, "url": "x"}), "bad_request"),
        (as_json({"image": 7}), "bad_request"),
        (as_json({"image": "no base64!"}), "bad_request"),
        (as_json({"image": "ä"}), "bad_request"),
        (as_json({"image": "data:image/png,raw"}), "bad_request"),
        (as_json({"image": ""}), "empty_body"),
        (as_json({"instances": []}), "bad_request"),
        (as_json({"instances": BASE64}), "bad_request"),
        (as_json({"instances": [BASE64] * 33}), "too_many_instances"),
        (as_json({"pixels": []}), "bad_request"),
        (as_json({"pixels": [[1, 2], [3]]}), "bad_request"),
        (as_json({"pixels": [[[1, 2]]]}), "bad_request"),
        (as_json({"pixels": [[[1, 2, 256]]]}), "bad_request"),
        (as_json({"pixels": [[[1, 2, -1]]]}), "bad_request"),
        (as_json({"pixels": [[[1, 2, 0.5]]]}), "bad_request"),
        (as_json({"pixels": [[[1, 2, 10**30]]]}), "bad_request"),
        (as_json({"pixels": [[["1", "2", "3"]]]}), "bad_request"),
        (as_json({"pixels": {"a": 1}}), "bad_request"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_its_name(request_: Request, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(request_)
    assert refused.value.code == code


def test_an_explanation_is_asked_for_by_the_servers_header_only() -> None:
    assert read(raw(PHOTO, EXPLAIN)).kind is Kind.EXPLAIN
    assert read(raw(PHOTO, {"EXPLAIN": "True"})).kind is Kind.PREDICT


def test_the_card_is_asked_for_by_the_management_port_only() -> None:
    def kind(headers: dict[str, Any]) -> Kind:
        return read(to_request({"body": bytearray()}, headers, "id")).kind

    assert kind({"describe": "True"}) is Kind.CARD
    assert kind({"describe": "True", "explain": "False"}) is Kind.HOW_TO_ASK


def test_a_browser_gets_the_page_and_a_program_the_instructions() -> None:
    browser, program = read(get({"Accept": "text/html,application/xhtml+xml"})), read(get({"Accept": "*/*"}))
    assert (browser.kind, browser.wants_page) == (Kind.HOW_TO_ASK, True)
    assert (program.kind, program.wants_page) == (Kind.HOW_TO_ASK, False)


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, 'quote"', "line\nline", "umlaut-ä"])
def test_only_a_harmless_request_id_is_taken_from_the_client(sent: str) -> None:
    assert raw(PHOTO, {"X-Request-Id": sent}, "ours").id == "ours"
    assert raw(PHOTO, {"X-REQUEST-ID": "theirs-1.0_x"}, "ours").id == "theirs-1.0_x"


@pytest.mark.parametrize(
    ("arrived", "waited"),
    [("1000.0", 7.5), ("1007.5", 0.0), ("1008", None), ("900", None), ("", None), ("nan", None), ("yesterday", None)],
)
def test_a_request_has_waited_since_the_gateway_handed_it_on(
    monkeypatch: pytest.MonkeyPatch, arrived: str, waited: float | None
) -> None:
    monkeypatch.setattr("handler.petclf_handler.time.time", lambda: 1007.5)
    assert to_request({"body": bytearray(PHOTO)}, {"x-petclf-arrived": arrived}, "id").waited == waited
