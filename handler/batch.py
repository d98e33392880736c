"""A batch of strangers' requests -> each its own answer. Knows nothing of TorchServe, so that it can be tested and moved."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import torch
from PIL import Image

from handler import answer
from handler.classifier import Classifier, Judgement, portions
from handler.fetch import fetch
from handler.photo_input import InvalidPhoto, open_photo, to_square
from handler.question import Address, Kind, Photo, Question, read_question, request_id
from handler.refusal import Refusal
from handler.statistics import photo_statistics

logger = logging.getLogger(__name__)

TOGETHER = 16  # photos whose statistics are computed at once: 5 MB
SECONDS = 6.0  # for reading all photos of a batch; TorchServe kills a worker that takes ten


@dataclass(frozen=True)
class Request:
    """One row as TorchServe hands it over."""

    row: Mapping[str, Any]
    headers: Mapping[str, Any]
    id: str


@dataclass(frozen=True)
class Reply:
    """What goes back to one stranger."""

    body: bytes
    content_type: str = answer.JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Item:
    """One photo on its way through."""

    photo: Photo
    id: str
    pixels: torch.Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    judgement: Judgement | None = None
    refusal: Refusal | None = None
    evidence: torch.Tensor | None = None
    decode_seconds: float = 0.0
    model_seconds: float = 0.0


@dataclass
class Outcome:
    """What happened in a batch, for metrics and the log."""

    replies: list[Reply]
    items: list[Item]
    refused: Counter[str]
    decode_seconds: float
    model_seconds: float
    seconds: float
    time: datetime

    def keep_what_is_recorded(self) -> None:
        """Let go of what only the answers needed: it may be 80 MB, and recording waits."""
        self.replies = []
        for item in self.items:
            item.photo, item.evidence = b"", None


class Answerer:
    """Answers batches with one model."""

    def __init__(self, classifier: Classifier, sizes: Sequence[int], page: Reply | None, hosts: frozenset[str]) -> None:
        self.classifier = classifier
        self.sizes = sizes
        self.page = page
        self.hosts = hosts
        self.model = {"name": classifier.metadata["name"], "version": classifier.metadata["version"]}

    def answer(self, requests: Sequence[Request], card: Any = None) -> Outcome:
        """Return one reply a request, in their order; nothing that one of them sent touches another."""
        started = time.perf_counter()
        asked = [self.read(request) for request in requests]
        items = [items_of(question, request) for question, request in zip(asked, requests, strict=True)]
        everything = [item for some in items for item in some]
        decode_seconds = self.decode(everything)
        model_seconds = self.judge(everything)
        self.explain(asked, items)
        replies = [self.reply(*each, card) for each in zip(requests, asked, items, strict=True)]
        refused = Counter(item.refusal.code for item in everything if item.refusal)
        refused.update(question.code for question in asked if isinstance(question, Refusal))
        seconds = time.perf_counter() - started
        return Outcome(replies, everything, refused, decode_seconds, model_seconds, seconds, datetime.now(timezone.utc))

    def read(self, request: Request) -> Question | Refusal:
        try:
            return read_question(request.row, request.headers)
        except Refusal as refusal:
            return refusal.kept()
        except Exception:
            logger.exception("a request could not be read")
            return Refusal("internal_error", "this request could not be read; the reason is in the server's log")

    def decode(self, items: list[Item]) -> float:
        """Turn every photo into pixels, or into its refusal; returns the seconds it took."""
        started = time.perf_counter()
        for item in items:
            begun = time.perf_counter()
            try:
                if begun - started > SECONDS:
                    raise Refusal("out_of_time", "the photos before this one took too long to read; send it again")
                item.pixels = self.pixels(item)
            except Refusal as refusal:
                item.refusal = refusal.kept()
            except InvalidPhoto as error:
                item.refusal = Refusal.of(error)
            except Exception:
                logger.exception("a photo could not be read")
                item.refusal = Refusal("internal_error", "this photo could not be read; the reason is in the server's log")
            item.decode_seconds = time.perf_counter() - begun
        return time.perf_counter() - started

    def pixels(self, item: Item) -> torch.Tensor:
        if isinstance(item.photo, Refusal):
            raise item.photo
        if isinstance(item.photo, Address):
            item.photo = fetch(item.photo.url, self.hosts)
        if isinstance(item.photo, bytes):
            opened = open_photo(item.photo)
            item.facts = {"format": opened.format, "width": opened.width, "height": opened.height, "bytes": len(item.photo)}
        else:
            opened = item.photo
            item.facts = {"format": "pixels", "width": opened.width, "height": opened.height, "bytes": 0}
        return to_square(opened, self.classifier.size)

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
        identity = request_id(request.headers, request.id)
        if isinstance(question, Refusal):
            return refused(question, identity)
        if question.kind is Kind.CARD:
            return Reply(answer.to_json(card() if card else {}))
        if question.kind is Kind.HOW_TO_ASK:
            return self.page if question.wants_page and self.page else Reply(answer.to_json(self.how_to_ask()))
        if question.many:
            return Reply(answer.to_json({"predictions": [self.content(item) for item in items]}))
        item = items[0]
        if item.refusal:
            return refused(item.refusal, identity)
        if question.wants_picture and item.evidence is not None and isinstance(item.photo, (bytes, Image.Image)):
            return Reply(answer.heat_picture(item.photo, item.evidence), "image/png")
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


def add_statistics(items: Sequence[Item]) -> None:
    """Add to the facts of each judged photo what it is like."""
    for start in range(0, len(items), TOGETHER):
        some = items[start : start + TOGETHER]
        statistics = photo_statistics(torch.stack([item.pixels for item in some if item.pixels is not None]))
        columns = {name: values.tolist() for name, values in statistics.items()}
        for index, item in enumerate(some):
            item.facts |= {name: values[index] for name, values in columns.items()}


def items_of(question: Question | Refusal, request: Request) -> list[Item]:
    if isinstance(question, Refusal):
        return []
    identity = request_id(request.headers, request.id)
    return [Item(photo, identity) for photo in question.photos]


def refused(reason: Refusal, identity: str) -> Reply:
    return Reply(answer.to_json(answer.refusal(reason, identity)), status=reason.status)
