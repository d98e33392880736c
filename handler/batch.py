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
from handler.limits import READ_SECONDS, WAIT_SECONDS
from handler.photo_input import open_photo, to_square
from handler.question import Address, Kind, Photo, Question, Request, read_question
from handler.refusal import Refusal, attempt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What goes back to one stranger."""

    body: bytes
    content_type: str = answer.JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Item:
    """One photo on its way through: each step adds what it finds, or a refusal, and then no later step touches it."""

    id: str
    sent: Photo
    refusal: Refusal | None = None
    picture: bytes | Image.Image = field(init=False)  # what a heat map is painted on
    pixels: torch.Tensor = field(init=False)
    facts: dict[str, Any] = field(init=False)
    judgement: Judgement = field(init=False)
    decode_seconds: float = 0.0
    model_seconds: float = 0.0

    def let_go(self) -> None:
        """Forget the photo itself: metrics and the log do not need it, and those of a batch may be 80 MB."""
        self.sent = self.picture = b""


@dataclass(frozen=True)
class Outcome:
    """What happened in a batch, for metrics and the log."""

    seen: list[Item]  # those that were answered
    refused: Counter[str]
    decode_seconds: float
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
        questions = [question_of(request, waited) for request in requests]
        items = [[Item(request.id, photo) for photo in asked.photos] for request, asked in zip(requests, questions, strict=True)]
        everything = [item for some in items for item in some]
        self.decode(everything)
        self.judge(everything)
        replies = [self.reply(question, some, card) for question, some in zip(questions, items, strict=True)]
        for item in everything:
            item.let_go()
        seen = [item for item in everything if not item.refusal]
        refused = Counter(item.refusal.code for item in everything if item.refusal)
        decode_seconds = sum(item.decode_seconds for item in everything)
        return replies, Outcome(seen, refused, decode_seconds, time.perf_counter() - started, datetime.now(timezone.utc))

    def decode(self, items: list[Item]) -> None:
        """Turn every photo into pixels, or into its refusal."""
        started = time.perf_counter()
        for item in items:
            begun = time.perf_counter()
            if isinstance(item.sent, Refusal):
                item.refusal = item.sent
            elif begun - started > READ_SECONDS:
                item.refusal = Refusal("out_of_time", "the photos before this one took too long to read; send it again")
            else:
                item.refusal = attempt(self.read_photo, item, item.sent)
            item.decode_seconds = time.perf_counter() - begun

    def read_photo(self, item: Item, sent: bytes | Image.Image | Address) -> None:
        item.picture = fetch(sent.url, self.hosts) if isinstance(sent, Address) else sent
        if isinstance(item.picture, bytes):
            opened, length = open_photo(item.picture), len(item.picture)
        else:
            opened, length = item.picture, 0
        item.facts = {"format": opened.format or "pixels", "width": opened.width, "height": opened.height, "bytes": length}
        item.pixels = to_square(opened, self.classifier.size)

    def judge(self, items: list[Item]) -> None:
        """Let the model look at every photo that could be read."""
        for some in portions([item for item in items if not item.refusal], self.sizes):
            try:
                judgements, seconds = self.classifier.predict(torch.stack([item.pixels for item in some]))
            except Exception:
                logger.exception("the model failed")
                for item in some:
                    item.refusal = Refusal("internal_error", "the model failed; the reason is in the server's log")
                continue
            for item, judgement in zip(some, judgements, strict=True):
                item.judgement, item.model_seconds = judgement, seconds / len(some)

    def reply(self, question: Question, items: list[Item], card: Any) -> Reply:
        if question.kind is Kind.CARD:
            return Reply(answer.to_json(card() if card else {}))
        if question.kind is Kind.HOW_TO_ASK:
            return self.page if question.wants_page and self.page else Reply(answer.to_json(self.how_to_ask()))
        if question.many:
            return Reply(answer.to_json({"predictions": [self.content(item, question.kind) for item in items]}))
        [item] = items
        if question.wants_picture and not item.refusal:
            return Reply(answer.heat_picture(item.picture, self.evidence(item)), "image/png")
        status = item.refusal.status if item.refusal else 200
        again = {"Retry-After": "1"} if status == 503 else {}
        return Reply(answer.to_json(self.content(item, question.kind)), status=status, headers=again)

    def content(self, item: Item, kind: Kind) -> dict[str, Any]:
        if item.refusal:
            return answer.refusal(item.refusal, item.id)
        content = answer.prediction(item.judgement, self.model, item.id, item.decode_seconds, item.model_seconds)
        if kind is Kind.EXPLAIN:
            content["explanation"] = answer.explanation(item.judgement, self.evidence(item))
        return content

    def evidence(self, item: Item) -> torch.Tensor:
        return self.classifier.evidence(item.pixels, item.judgement.label)

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


def question_of(request: Request, waited: float) -> Question:
    """Return what the request asks; a refused one asks about one photo, which is refused."""
    question = attempt(read_in_time, request, waited)
    return Question(Kind.PREDICT, [question]) if isinstance(question, Refusal) else question


def read_in_time(request: Request, waited: float) -> Question:
    if waited > WAIT_SECONDS:
        raise Refusal("busy", f"the server was too busy for more than {WAIT_SECONDS:g} seconds; send it again")
    return read_question(request)
