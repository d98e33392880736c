"""The way into TorchServe: rows and headers in, replies out. What an answer is, is decided in batch.py."""

import ctypes
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from handler.batch import Answerer, Item, Outcome, Request, add_statistics
from handler.classifier import BrokenModelError, Classifier
from handler.fetch import allowed_hosts
from handler.identity import archive_digest
from handler.page import load_page
from handler.prediction_log import PredictionLog
from handler.recent import Recent
from handler.telemetry import Observation, Telemetry, queue_reader

logger = logging.getLogger("petclf")


class PetclfHandler:
    """What TorchServe calls: initialize once, handle for each batch. (This module may hold one class only.)"""

    def initialize(self, context: Any) -> None:
        """Load, prove and warm up the model; a worker that cannot do so does not come up, and says why."""
        quiet_torchserve()
        try:
            self.load(context)
        except BrokenModelError as error:
            report_failure(str(error))
            raise

    def load(self, context: Any) -> None:
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        gpu = properties.get("gpu_id")
        device = f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu"
        classifier = Classifier(folder / context.manifest["model"]["serializedFile"], device, threads())
        metadata = classifier.metadata
        sizes = classifier.sizes(int(properties["batch_size"]))
        classifier.warm_up(sizes)
        classifier.check_golden()
        give_back_memory()
        self.archive = archive_digest(folder)
        self.version = metadata["version"]
        self.recent = Recent(folder / "recent.ring", classifier.labels)
        self.log = PredictionLog.from_environment()
        self.answerer = Answerer(classifier, sizes, load_page(folder / "page.html", context.model_name), allowed_hosts())
        self.telemetry = Telemetry(context.metrics, self.version, self.archive, self.recent, metadata.get("reference", {}))
        self.unrecorded: list[Outcome] = []
        self.telemetry.start(queue_reader(context.model_name, context.manifest["model"]["modelVersion"]))
        where = f"{device} in {classifier.form}" if device == "cpu" else device
        logger.warning("ready: %s %s on %s, archive sha256 %s", metadata["name"], self.version, where, self.archive or "unknown")

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch."""
        requests = [
            Request(row, context.get_all_request_header(index), context.get_request_id(index)) for index, row in enumerate(data)
        ]
        outcome = self.answerer.answer(requests, self.card)
        for index, reply in enumerate(outcome.replies):
            context.set_response_status(reply.status, "", index)
            context.set_response_content_type(index, reply.content_type)
            context.set_response_header(index, "x-petclf-version", self.version)
            context.set_response_header(index, "x-petclf-archive", self.archive)
            for name, value in reply.headers.items():
                context.set_response_header(index, name, value)
        bodies = [reply.body for reply in outcome.replies]
        outcome.keep_what_is_recorded()
        self.unrecorded.append(outcome)
        self.record()
        return bodies

    def record(self) -> None:
        """Tell metrics, log and summary what happened since the last time."""
        outcomes, self.unrecorded = self.unrecorded, []
        for outcome in outcomes:
            self.telemetry.observe(*observations(outcome))
            for code, count in outcome.refused.items():
                labels = () if code == "internal_error" else (code,)
                self.telemetry.count("petclf_refused" if labels else "petclf_failed", *labels, by=count)
        answered = [(outcome.time, item) for outcome in outcomes for item in outcome.items if item.judgement is not None]
        if not answered:
            return
        add_statistics([item for _, item in answered])
        for _, item in answered:
            assert item.judgement is not None
            self.telemetry.count("petclf_predictions", item.judgement.label, item.judgement.unsure_because or "no")
        self.recent.add([remembered(item) for _, item in answered])
        if lost := self.log.write(self.log_entry(*each) for each in answered):
            self.telemetry.count("petclf_log_lost", by=lost)

    def log_entry(self, time: datetime, item: Item) -> dict[str, Any]:
        """Return one line of the prediction log: nothing in it tells whose photo it was or what it shows beyond its label."""
        judgement = item.judgement
        assert judgement is not None
        photo = {name: round(value, 4) if isinstance(value, float) else value for name, value in item.facts.items()}
        return {
            "time": time.isoformat(timespec="milliseconds"),
            "request_id": item.id,
            "label": judgement.label,
            "confidence": round(judgement.confidence, 6),
            "unlike": round(judgement.unlike, 6),
            "unsure_because": judgement.unsure_because,
            "version": self.version,
            "photo": photo,
            "milliseconds": {"decode": round(item.decode_seconds * 1000, 2), "model": round(item.model_seconds * 1000, 2)},
        }

    def card(self) -> dict[str, Any]:
        """Return what GET :8081/models/petclf?customized=true shows."""
        metadata = self.answerer.classifier.metadata
        card = {
            name: metadata[name]
            for name in ("name", "version", "labels", "image_size", "parameters", "metrics")
            if name in metadata
        }
        return {
            "card": {**card, "form": self.answerer.classifier.form},
            "thresholds": metadata["thresholds"],
            "provenance": metadata.get("provenance", {}),
            "archive": self.archive,
            "recent": self.recent.summary(),
        }


def observations(outcome: Outcome) -> list[Observation]:
    """Return how long a batch took and how large it was; nothing of one in which nobody sent a photo."""
    answered = sum(item.judgement is not None for item in outcome.items)
    if not answered and not outcome.refused:
        return []
    result = "answered" if answered else "refused"
    times: list[Observation] = [
        ("petclf_seconds", outcome.seconds, ("total", result)),
        ("petclf_seconds", outcome.decode_seconds, ("decode", result)),
    ]
    if not answered:
        return times
    return [*times, ("petclf_seconds", outcome.model_seconds, ("model", result)), ("petclf_batch_photos", answered, ())]


def remembered(item: Item) -> tuple[str, bool, float, dict[str, float]]:
    judgement = item.judgement
    assert judgement is not None
    statistics = {**item.facts, "confidence": judgement.confidence, "unlike": judgement.unlike}
    return judgement.label, judgement.unsure_because is not None, item.decode_seconds + item.model_seconds, statistics


def threads() -> int:
    """Return how many cores this worker may use: more than its share costs all workers dearly."""
    given = os.environ.get("PETCLF_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else 1


def quiet_torchserve() -> None:
    """Let TorchServe's worker code log warnings only: it writes lines for each batch, and telemetry.py writes the metrics."""
    logging.getLogger().setLevel(logging.WARNING)


def give_back_memory() -> None:
    """Give the system what loading took and nobody needs any more, about 40 MB; without glibc nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def report_failure(reason: str) -> None:
    """Leave the reason where scripts/serve.py finds it, which then ends the server with it."""
    if state := os.environ.get("PETCLF_STATE"):
        Path(state, "failed").write_text(reason, encoding="utf-8")
