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

from handler import answer, cost
from handler.classifier import Classifier, Judgement, portions
from handler.fetch import Fetcher, judge
from handler.lanes import Lanes
from handler.limits import READ_SECONDS, WAIT_SECONDS
from handler.photo_input import open_photo, to_square
from handler.question import Address, Kind, Photo, Question, Request, is_json, read_question
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
    seconds: float = 0.0  # that it will take to read, as its header tells
    opened: Image.Image = field(init=False)
    picture: bytes | Image.Image = field(init=False)  # what a heat map is painted on
    pixels: torch.Tensor = field(init=False)
    facts: dict[str, Any] = field(init=False)
    judgement: Judgement = field(init=False)
    decode_seconds: float = 0.0
    model_seconds: float = 0.0

    def let_go(self) -> None:
        """Forget the photo itself: metrics and the log do not need it, and those of a batch may be 80 MB."""
        self.sent = self.picture = b""
        self.__dict__.pop("opened", None)


@dataclass
class Asked:
    """One request on its way through: the question that it became, and its photos; or one refusal in the place of both."""

    request: Request
    question: Question = field(default_factory=lambda: Question(Kind.PREDICT))
    items: list[Item] = field(default_factory=list)
    seconds: float = 0.0  # that its photos and their JSON take to read, as far as it is known
    refused: bool = False

    def refuse(self, refusal: Refusal) -> None:
        """Answer the whole request with a refusal: it asks about one photo, which is refused."""
        self.question, self.refused = Question(Kind.PREDICT, [refusal]), True
        self.items = [Item(self.request.id, refusal, refusal)]


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

    def __init__(
        self, classifier: Classifier, sizes: Sequence[int], page: Reply | None, hosts: frozenset[str], lanes: Lanes
    ) -> None:
        self.classifier = classifier
        self.sizes = sizes
        self.page = page
        self.fetcher = Fetcher(hosts)
        self.lanes = lanes
        self.model = {"name": classifier.metadata["name"], "version": classifier.metadata["version"]}

    def answer(self, requests: Sequence[Request], card: Any = None, waited: float = 0.0) -> tuple[list[Reply], Outcome]:
        """Return one reply a request, in their order; nothing that one of them sent touches another."""
        started = time.perf_counter()
        try:
            asked = self.let_in(requests, waited)
            everything = [item for one in asked for item in one.items]
            self.read(everything)
            self.judge(everything)
            replies = [self.reply(one.question, one.items, card) for one in asked]
        finally:
            self.lanes.leave()
        for item in everything:
            item.let_go()
        seen = [item for item in everything if not item.refusal]
        refused = Counter(item.refusal.code for item in everything if item.refusal)
        decode_seconds = sum(item.decode_seconds for item in everything)
        return replies, Outcome(seen, refused, decode_seconds, time.perf_counter() - started, datetime.now(timezone.utc))

    def let_in(self, requests: Sequence[Request], waited: float) -> list[Asked]:
        """Return what is asked, its cost judged twice: before JSON is parsed, and when the headers of all photos are read."""
        asked = [Asked(request) for request in requests]
        for one in asked:
            if isinstance(seconds := attempt(seconds_of_body, one.request, waited), Refusal):
                one.refuse(seconds)
            else:
                one.seconds = seconds
        self.turn_away(asked)
        deadline = time.monotonic() + READ_SECONDS
        for one in asked:
            if not one.refused:
                self.ask(one, deadline)
        self.turn_away(asked)
        return asked

    def turn_away(self, asked: list[Asked]) -> None:
        waiting = [one for one in asked if not one.refused]
        for one, away in zip(waiting, cost.turned_away([one.seconds for one in waiting], self.lanes.take), strict=True):
            if away:
                one.refuse(cost.gives_way())

    def ask(self, one: Asked, deadline: float) -> None:
        """Read the question and the headers of its photos, and say what they will cost."""
        question = attempt(read_question, one.request)
        if isinstance(question, Refusal):
            return one.refuse(question)
        one.question, one.items = question, [Item(one.request.id, photo) for photo in question.photos]
        for item in one.items:
            item.refusal = item.sent if isinstance(item.sent, Refusal) else attempt(self.open, item, item.sent, deadline)
        one.seconds += sum(item.seconds for item in one.items)
        if question.many and (refusal := cost.too_much(one.seconds)):
            one.refuse(refusal)
        if question.wants_picture:
            one.seconds += cost.PICTURE + one.seconds  # the photo is read again, larger
        return None

    def open(self, item: Item, sent: bytes | Image.Image | Address, deadline: float) -> None:
        """Read the header of a photo that is here, and judge the address of one that is not."""
        if isinstance(sent, Address):
            judge(sent.url, self.fetcher.hosts)
            item.seconds = cost.ADDRESS
        elif isinstance(sent, bytes):
            item.picture, item.opened = sent, open_photo(sent, deadline)
            item.seconds = cost.of_photo(item.opened, sent, self.classifier.size)
        else:
            item.picture = item.opened = sent
            item.seconds = cost.EACH_PHOTO

    def read(self, items: list[Item]) -> None:
        """Turn every photo into pixels, or into its refusal: first those that are here, then those that lie at addresses."""
        here = [item for item in items if not isinstance(item.sent, Address)]
        self.decode(here, READ_SECONDS)
        if away := [item for item in items if isinstance(item.sent, Address) and not item.refusal]:
            left = READ_SECONDS - sum(item.decode_seconds for item in here)
            self.fetch(away, left)
            self.decode(away, left)

    def fetch(self, items: list[Item], seconds: float) -> None:
        """Bring the photos at addresses here, all at once; `seconds` is the time for reading them then."""
        found = self.fetcher.fetch_all([item.sent.url for item in items if isinstance(item.sent, Address)])
        deadline = time.monotonic() + seconds
        for item, data in zip(items, found, strict=True):
            item.refusal = data if isinstance(data, Refusal) else attempt(self.open, item, data, deadline)

    def decode(self, items: list[Item], seconds: float) -> None:
        started = time.perf_counter()
        for item in items:
            if item.refusal:
                continue
            begun = time.perf_counter()
            if begun - started > seconds:
                item.refusal = Refusal("out_of_time", "the photos before this one took too long to read; send it again")
            else:
                item.refusal = attempt(self.read_photo, item)
            item.decode_seconds = time.perf_counter() - begun

    def read_photo(self, item: Item) -> None:
        opened, length = item.opened, len(item.picture) if isinstance(item.picture, bytes) else 0
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
        return Reply(answer.to_json(self.content(item, question.kind)), status=status, headers=when_to_come_again(item.refusal))

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


def when_to_come_again(refusal: Refusal | None) -> dict[str, str]:
    if refusal is None or refusal.status != 503:
        return {}
    seconds = "2" if refusal.code == "dear_request" else "1"  # dear ones are read one after another
    return {"Retry-After": seconds, "x-petclf-refusal": refusal.code}  # the gateway reads no bodies


def seconds_of_body(request: Request, waited: float) -> float:
    """Return what it costs to find out what the request asks, or refuse it."""
    if (waited if request.waited is None else request.waited) > WAIT_SECONDS:
        raise Refusal("busy", f"the server was too busy for more than {WAIT_SECONDS:g} seconds; send it again")
    return cost.of_body(request.body) if is_json(request) else 0.0
