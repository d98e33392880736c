"""The way into TorchServe: its rows and headers in, its replies out. What an answer is, is decided in batch.py."""

import ctypes
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from handler.archive_digest import archive_digest
from handler.backlog import Backlog
from handler.batch import Answerer
from handler.classifier import BrokenModelError, Classifier
from handler.fetch import allowed_hosts
from handler.lanes import Lanes
from handler.page import load_page
from handler.prediction_log import PredictionLog
from handler.question import URLENCODED, Kind, Request
from handler.recent import Recent
from handler.recorder import Recorder
from handler.telemetry import Telemetry

logger = logging.getLogger("petclf")

HARMLESS_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONGEST_WAIT = 60  # seconds: the gateway gives up after 12
CARD = ("name", "version", "labels", "image_size", "parameters", "metrics")


class PetclfHandler:
    """What TorchServe calls: initialize once, handle for each batch. (This module may hold one class only.)"""

    def initialize(self, context: Any) -> None:
        """Load, prove and warm up the model; a worker that cannot do so does not come up, and says why."""
        set_up_logging()
        try:
            self.load(context)
        except BrokenModelError as error:
            report_failure(str(error))
            raise

    def load(self, context: Any) -> None:
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        device = (
            "cuda" if torch.cuda.is_available() else "cpu"
        )  # which GPU: config.properties says why TorchServe does not choose
        threads = int(os.environ.get("PETCLF_THREADS") or 1)  # more than a worker's share costs all workers dearly
        classifier = Classifier(folder / context.manifest["model"]["serializedFile"], device, threads)
        metadata = classifier.metadata
        sizes = classifier.sizes(int(properties["batch_size"]))
        classifier.warm_up(sizes)
        classifier.check_golden()
        self.archive = archive_digest(folder)
        give_back_memory()
        self.version = metadata["version"]
        self.recent = Recent(folder / "recent.ring", classifier.labels)
        lanes = Lanes(folder, int(os.environ.get("PETCLF_DEAR_WORKERS") or 1))
        self.answerer = Answerer(classifier, sizes, load_page(folder / "page.html", context.model_name), allowed_hosts(), lanes)
        self.backlog = Backlog()
        telemetry = Telemetry(context.metrics, self.version)
        log = PredictionLog.from_environment()
        self.recorder = Recorder(telemetry, log, self.recent, metadata.get("reference", {}), self.version)
        self.recorder.start()
        where = f"{device} in {classifier.form}" if device == "cpu" else device
        logger.warning("ready: %s %s on %s, archive sha256 %s", metadata["name"], self.version, where, self.archive or "unknown")

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch."""
        waited = self.backlog.longest_wait(len(data))
        requests = [
            to_request(row, context.get_all_request_header(index), context.get_request_id(index))
            for index, row in enumerate(data)
        ]
        replies, outcome = self.answerer.answer(requests, self.card, waited)
        versions = {"x-petclf-version": self.version, "x-petclf-archive": self.archive}
        for index, reply in enumerate(replies):
            context.set_response_status(reply.status, "", index)
            context.set_response_content_type(index, reply.content_type)
            for name, value in {**versions, **reply.headers}.items():
                context.set_response_header(index, name, value)
        self.recorder.add(outcome)
        self.backlog.answered()
        return [reply.body for reply in replies]

    def card(self) -> dict[str, Any]:
        """Return what GET :8081/models/petclf?customized=true shows."""
        metadata = self.answerer.classifier.metadata
        return {
            "card": {**{name: metadata[name] for name in CARD if name in metadata}, "form": self.answerer.classifier.form},
            "thresholds": metadata["thresholds"],
            "provenance": metadata.get("provenance", {}),
            "archive": self.archive,
            "recent": self.recent.summary(),
        }


def to_request(row: Mapping[str, Any], headers: Mapping[str, Any], fallback_id: str) -> Request:
    """Bring one row into the form that the rest of the handler knows.

    TorchServe tells a worker neither method nor path, only headers. Its own come in lower case and replace a client's: `explain` is
    on every question that comes to the inference port, so `describe` without it is the management port's, and no client's.
    """
    lower = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    sent_id = lower.get("x-request-id", "")
    content_type = lower.get("content-type", "").split(";")[0].strip().lower()
    kind = Kind.EXPLAIN if headers.get("explain") == "True" else Kind.PREDICT
    if headers.get("describe") == "True" and "explain" not in headers:
        kind = Kind.CARD
    is_form = content_type == "multipart/form-data"
    body: bytes | bytearray = b""
    if content_type == URLENCODED:
        body = from_attributes(row)
    elif not is_form:
        body = row.get("body") or row.get("data") or b""
    return Request(
        id=sent_id if HARMLESS_ID.fullmatch(sent_id) else fallback_id,
        kind=kind,
        body=body,
        files=files_of(row, headers) if is_form else None,
        content_type=content_type,
        accept=lower.get("accept", ""),
        has_body="Content-Length" in headers or "content-type" in lower,  # Netty adds content-length, in lower case, to a GET
        waited=seconds_since(lower.get("x-petclf-arrived", "")),
    )


def seconds_since(arrived: str) -> float | None:
    """Return how long ago the gateway handed a request on, by its clock; nothing without a gateway, or if its clock differs."""
    try:
        seconds = time.time() - float(arrived)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_WAIT else None


def files_of(row: Mapping[str, Any], headers: Mapping[str, Any]) -> list[bytes]:
    """Return a form's files, whatever their fields are called; text fields beside them do not matter.

    TorchServe keeps a part's type among the headers, under the field's name, where a real header of that name takes its place.
    """
    fields = {name: bytes(value) for name, value in row.items() if isinstance(value, (bytes, bytearray)) and value}
    typed = [name for name in fields if isinstance(headers.get(name), dict) and headers[name].get("content-type")]
    binary = [name for name in fields if not is_text(fields[name])]
    return [fields[name] for name in typed or binary or fields]


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def from_attributes(row: Mapping[str, Any]) -> bytes:
    """Return the body of `curl -d @question.json`, which TorchServe took apart as if it were NAME=VALUE&NAME=VALUE.

    Base64 is the only text of JSON in which that loses something: its + became a space. Of a body without any = nothing arrives.
    """
    whole = "&".join("=".join((name, bytes(value).decode("utf-8", "replace"))) if value else name for name, value in row.items())
    return re.sub(r'"[^"]*"', lambda text: text[0].replace(" ", "+"), whole).encode()


def set_up_logging() -> None:
    """Let workers log warnings only, and each in one line, for TorchServe makes a log entry of every line.

    TorchServe's own worker code writes lines for each batch, and metrics are telemetry.py's.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.format = lambda record, format=handler.format: format(record).replace("\n", " | ")  # type: ignore[method-assign,misc]


def give_back_memory() -> None:
    """Give the system what loading took and nobody needs any more, about 40 MB; without glibc nothing happens."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def report_failure(reason: str) -> None:
    """Leave the reason where the supervisor (serving/) finds it, which then ends the server with it."""
    if state := os.environ.get("PETCLF_STATE"):
        Path(state, "failed").write_text(reason, encoding="utf-8")
