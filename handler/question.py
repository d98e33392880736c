"""One request of a batch -> what it asks. Knows HTTP's words, but no server: petclf_handler.py brings requests into this form."""

import base64
import binascii
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from PIL import Image

from handler.limits import MAX_INSTANCES
from handler.refusal import Refusal, attempt

URLENCODED = "application/x-www-form-urlencoded"
FORMS = ("image", "pixels", "url")
HOW = 'send a photo as the body, as a multipart file, or as JSON {"image": "<base64>"}, {"pixels": ...}, {"url": ...} or {"instances": [...]}'


class Kind(Enum):
    """What a request wants to know."""

    PREDICT = "predict"
    EXPLAIN = "explain"
    HOW_TO_ASK = "how_to_ask"
    CARD = "card"


@dataclass(frozen=True)
class Request:
    """One request, whatever server took it."""

    id: str
    kind: Kind = Kind.PREDICT
    body: bytes | bytearray = b""
    files: Sequence[bytes] | None = None  # of a multipart form, which has no body beside them
    content_type: str = ""
    accept: str = ""
    has_body: bool = True  # it sent one, though perhaps an empty one
    waited: float | None = None  # seconds, where the gateway has said when it came


@dataclass(frozen=True)
class Address:
    """A photo that lies somewhere else."""

    url: str


Photo = bytes | Image.Image | Address | Refusal  # a refused one keeps its place among its neighbours


@dataclass(frozen=True)
class Question:
    """What one request asks; `many` tells `{"instances": [one]}` from one photo."""

    kind: Kind
    photos: list[Photo] = field(default_factory=list)
    many: bool = False
    accept: str = ""

    @property
    def wants_picture(self) -> bool:
        return self.kind is Kind.EXPLAIN and "image/png" in self.accept and not self.many

    @property
    def wants_page(self) -> bool:
        return self.kind is Kind.HOW_TO_ASK and "text/html" in self.accept


def read_question(request: Request) -> Question:
    """Return what the request asks, or raise Refusal."""
    if request.kind is Kind.CARD:
        return Question(Kind.CARD)
    if request.files is not None:
        return Question(request.kind, [only_file(request.files)], accept=request.accept)
    is_form = request.content_type == URLENCODED
    if not request.body and not is_form:
        if request.has_body:
            raise Refusal("empty_body", f"the body is empty; {HOW}")
        return Question(Kind.HOW_TO_ASK, accept=request.accept)
    if is_json(request):
        photos, many = json_photos(request.body)
        return Question(request.kind, photos, many, request.accept)
    if is_form:
        raise Refusal(
            "unsupported_media_type",
            "a form cannot carry a photo; use curl -T photo.jpg, curl -F file=@photo.jpg, or say -H 'Content-Type: application/json'",
        )
    return Question(request.kind, [bytes(request.body)], accept=request.accept)


def is_json(request: Request) -> bool:
    return request.content_type.endswith("json") or request.body[:64].lstrip()[:1] in (b"{", b"[")


def only_file(files: Sequence[bytes]) -> bytes:
    if not files:
        raise Refusal("empty_body", f"the form holds no file; {HOW}")
    if len(files) > 1:
        raise Refusal("bad_request", f'the form holds {len(files)} files; send one, or many as JSON {{"instances": [...]}}')
    return files[0]


def json_photos(body: bytes | bytearray) -> tuple[list[Photo], bool]:
    """Return the photos of a JSON body, and whether it asked in the form for many."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise Refusal("bad_json", f"the body is not valid JSON; {HOW}") from None
    if isinstance(content, dict) and "instances" in content:
        instances = content["instances"]
        if not isinstance(instances, list) or not instances:
            raise Refusal("bad_request", "instances must be a list of at least one photo")
        if len(instances) > MAX_INSTANCES:
            raise Refusal("too_many_instances", f"{len(instances)} instances; the limit is {MAX_INSTANCES} a request")
        return [attempt(json_photo, instance) for instance in instances], True
    if not isinstance(content, dict):
        raise Refusal("bad_request", f"the JSON is no object; {HOW}")
    return [json_photo(content)], False


def json_photo(instance: object) -> bytes | Image.Image | Address:
    """Return the photo of one JSON object, or of a plain base64 text."""
    if isinstance(instance, str):
        return from_base64(instance)
    if not isinstance(instance, dict):
        raise Refusal("bad_request", "a photo in JSON is base64 text or an object with image, pixels or url")
    given = [name for name in FORMS if name in instance]
    if len(given) != 1:
        raise Refusal("bad_request", f"give exactly one of {', '.join(FORMS)}; {' and '.join(given) or 'none'} found")
    value = instance[given[0]]
    if given[0] == "pixels":
        return from_pixels(value)
    if isinstance(value, dict) and set(value) == {"b64"}:  # TensorFlow Serving's and KServe's way of writing bytes
        value = value["b64"]
    if not isinstance(value, str):
        raise Refusal("bad_request", f"{given[0]} must be text")
    return Address(value) if given[0] == "url" else from_base64(value)


def from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Refusal("bad_request", "a data: URL must hold base64: data:image/jpeg;base64,...")
    try:
        data = base64.b64decode(text.encode("ascii").translate(None, string.whitespace.encode()), validate=True)
    except (binascii.Error, ValueError):  # UnicodeEncodeError is a ValueError
        raise Refusal("bad_request", "image is not valid base64") from None
    if not data:
        raise Refusal("empty_body", "image is empty")
    return data


def from_pixels(value: object) -> Image.Image:
    """Return [[[r, g, b], ...], ...] of whole numbers from 0 to 255 as a photo."""
    complaint = "pixels must be rows of [red, green, blue], whole numbers from 0 to 255"
    try:
        pixels = np.asarray(value)
    except (ValueError, OverflowError):
        raise Refusal("bad_request", complaint) from None
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0 and pixels.dtype.kind in "iu"
    if not is_colour or pixels.min() < 0 or pixels.max() > 255:
        raise Refusal("bad_request", complaint)
    return Image.fromarray(pixels.astype(np.uint8))
