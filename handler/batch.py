"""A batch of strangers' requests -> each its own answer. Knows nothing of TorchServe, so that it can be tested and moved."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch
from PIL import Image

from handler import answer
from handler.classifier import Classifier, Judgement, portions
from handler.fetch import fetch
from handler.limits import READ_SECONDS, WAIT_SECONDS
from handler.photo_input import InvalidPhoto, open_photo, to_square
from handler.question import Address, Kind, Photo, Question, Request, read_question
from handler.refusal import Refusal

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reply:
    """What goes back to one stranger."""

    body: bytes
    content_type: str = answer.JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Item:
    """One photo on its way through: what was sent, then its pixels, then the model's judgement; or a refusal at any step."""

    sent: Photo
    id: str
    picture: bytes | Image.Image | None = None  # what a heat map is painted on
    pixels: torch.Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    judgement: Judgement | None = None
    refusal: Refusal | None = None
    evidence: torch.Tensor | None = None
    decode_seconds: float = 0.0
    model_seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What metrics and the log need to know of a photo that was answered."""

    id: str
    pixels: torch.Tensor
    facts: dict[str, Any]
    judgement: Judgement
    decode_seconds: float
    model_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What happened in a batch, for metrics and the log; photos and answers are not in it, for they may be 80 MB."""

    seen: list[Seen]
    refused: Counter[str]
    decode_seconds: float
    model_seconds: float
    seconds: float
    time: datetime


class Answerer:
    """Answers batches with one model."""

    def __init__(self, classifier: Classifier, sizes: Sequence[int], page: Reply | None, hosts: frozenset[str]) -> None:
        self.classifier = classifier
        self.sizes = sizes
        self.page = page
        self.hosts = hosts
        self.model = {"name": classifier.metadata["name"], "version": classifier.metadata["version"]}

    def answer(self, requests: Sequence[Request], card: Any = None, waited: float = 0.0) -> tuple[list[Reply], Outcome]:
        """Return one reply a request, in their order; nothing that one of them sent touches another."""
        started = time.perf_counter()
        asked = [attempt(read_question, request) if waited <= WAIT_SECONDS else too_late() for request in requests]
        items = [items_of(question, request) for question, request in zip(asked, requests, strict=True)]
        everything = [item for some in items for item in some]
        decode_seconds = self.decode(everything)
        model_seconds = self.judge(everything)
        self.explain(asked, items)
        replies = [self.reply(*each, card) for each in zip(requests, asked, items, strict=True)]
        refused = Counter(item.refusal.code for item in everything if item.refusal)
        refused.update(question.code for question in asked if isinstance(question, Refusal))
        seconds = time.perf_counter() - started
        seen = [
            Seen(item.id, item.pixels, item.facts, item.judgement, item.decode_seconds, item.model_seconds)
            for item in everything
            if item.judgement is not None and item.pixels is not None
        ]
        return replies, Outcome(seen, refused, decode_seconds, model_seconds, seconds, datetime.now(timezone.utc))

    def decode(self, items: list[Item]) -> float:
        """Turn every photo into pixels, or into its refusal; returns the seconds it took."""
        started = time.perf_counter()
        for item in items:
            begun = time.perf_counter()
            late = begun - started > READ_SECONDS
            result = out_of_time() if late else attempt(self.read_photo, item)
            if isinstance(result, Refusal):
                item.refusal = result
            item.decode_seconds = time.perf_counter() - begun
        return time.perf_counter() - started

    def read_photo(self, item: Item) -> None:
        if isinstance(item.sent, Refusal):
            raise item.sent
        item.picture = fetch(item.sent.url, self.hosts) if isinstance(item.sent, Address) else item.sent
        if isinstance(item.picture, bytes):
            opened, length, format = open_photo(item.picture), len(item.picture), None
        else:
            opened, length, format = item.picture, 0, "pixels"
        item.facts = {"format": format or opened.format, "width": opened.width, "height": opened.height, "bytes": length}
        item.pixels = to_square(opened, self.classifier.size)

    def judge(self, items: list[Item]) -> float:
        """Let the model look at every photo that could be read; returns the seconds it took."""
        total = 0.0
        readable = [item for item in items if item.pixels is not None]
        for some in portions(readable, self.sizes):
            photos = torch.stack([item.pixels for item in some if item.pixels is not None])
            try:
                judgements, seconds = self.classifier.predict(photos)
            except Exception:
                logger.exception("the model failed")
                for item in some:
                    item.refusal = Refusal("internal_error", "the model failed; the reason is in the server's log")
                continue
            total += seconds
            for item, judgement in zip(some, judgements, strict=True):
                item.judgement, item.model_seconds = judgement, seconds / len(some)
        return total

    def explain(self, asked: list[Question | Refusal], items: list[list[Item]]) -> None:
        """Find the evidence for the photos whose sender asked for it."""
        for question, some in zip(asked, items, strict=True):
            if isinstance(question, Refusal) or question.kind is not Kind.EXPLAIN:
                continue
            for item in some:
                if item.judgement is not None and item.pixels is not None:
                    item.evidence = self.classifier.evidence(item.pixels[None], [item.judgement])[0]

    def reply(self, request: Request, question: Question | Refusal, items: list[Item], card: Any) -> Reply:
        if isinstance(question, Refusal):
            return refused(question, request.id)
        if question.kind is Kind.CARD:
            return Reply(answer.to_json(card() if card else {}))
        if question.kind is Kind.HOW_TO_ASK:
            return self.page if question.wants_page and self.page else Reply(answer.to_json(self.how_to_ask()))
        if question.many:
            return Reply(answer.to_json({"predictions": [self.content(item) for item in items]}))
        item = items[0]
        if item.refusal:
            return refused(item.refusal, request.id)
        if question.wants_picture and item.evidence is not None and item.picture is not None:
            return Reply(answer.heat_picture(item.picture, item.evidence), "image/png")
        return Reply(answer.to_json(self.content(item)))

    def content(self, item: Item) -> dict[str, Any]:
        if item.refusal or item.judgement is None:
            return answer.refusal(item.refusal or Refusal("internal_error", "no answer"), item.id)
        content = answer.prediction(item.judgement, self.model, item.id, item.decode_seconds, item.model_seconds)
        if item.evidence is not None:
            content["explanation"] = answer.explanation(item.judgement, item.evidence)
        return content

    def how_to_ask(self) -> dict[str, Any]:
        name = self.model["name"]
        return {
            "model": self.model,
            "labels": self.classifier.labels,
            "how_to_ask": {
                "photo": f"curl -T photo.jpg http://HOST/predictions/{name}",
                "form": f"curl -F file=@photo.jpg http://HOST/predictions/{name}",
                "json": 'POST {"image": "<base64>"}, {"pixels": [[[r, g, b], ...], ...]}, {"url": "https://..."} or {"instances": [...]}',
                "why": f"the same to /explanations/{name}; with Accept: image/png the answer is a picture",
            },
        }


def attempt(read: Callable[[Any], Result], what: Any) -> Result | Refusal:
    """Return what is read of a stranger's bytes, or the refusal that they get: no exception touches a neighbour."""
    try:
        return read(what)
    except Refusal as refusal:
        return refusal.without_traceback()
    except InvalidPhoto as error:
        return Refusal.of(error)
    except Exception:
        logger.exception("a request could not be read")
        return Refusal("internal_error", "this request could not be read; the reason is in the server's log")


def too_late() -> Refusal:
    return Refusal("busy", f"the server was too busy for more than {WAIT_SECONDS:g} seconds; send it again")


def out_of_time() -> Refusal:
    return Refusal("out_of_time", "the photos before this one took too long to read; send it again")


def items_of(question: Question | Refusal, request: Request) -> list[Item]:
    return [] if isinstance(question, Refusal) else [Item(photo, request.id) for photo in question.photos]


def refused(reason: Refusal, identity: str) -> Reply:
    again = {"Retry-After": "1"} if reason.status == 503 else {}
    return Reply(answer.to_json(answer.refusal(reason, identity)), status=reason.status, headers=again)
