"""What follows an answer: metrics, prediction log, the last photos. Done by a thread of its own, so that no client waits for it."""

import itertools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import torch

from handler.batch import Item, Outcome
from handler.prediction_log import PredictionLog
from handler.recent import STATISTICS, Recent
from handler.statistics import photo_statistics
from handler.telemetry import Metric, Telemetry

logger = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks for something to record; what a killed worker had not recorded is lost
TICKS_A_STATE = 50
TOGETHER = 16  # photos whose statistics are computed at once: 5 MB
ENOUGH = 30  # photos before a shift of their mean means anything


class Recorder:
    """Records the outcomes of one worker."""

    def __init__(self, telemetry: Telemetry, log: PredictionLog, recent: Recent, reference: dict[str, Any], version: str) -> None:
        self.telemetry, self.log, self.recent = telemetry, log, recent
        self.reference, self.version = reference, version
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self.run, name="recorder", daemon=True).start()

    def add(self, outcome: Outcome) -> None:
        self.outcomes.put(outcome)

    def run(self) -> None:
        for tick in itertools.count():
            try:
                self.record(self.state() if tick % TICKS_A_STATE == 0 else ())
            except Exception:  # answers must go on, and so must the next tick
                logger.warning("metrics or the prediction log could not be written", exc_info=True)
            time.sleep(TICK)

    def record(self, state: Iterable[Metric] = ()) -> None:
        """Record everything that happened since the last time, and the state of things."""
        outcomes = [self.outcomes.get_nowait() for _ in range(self.outcomes.qsize())]
        seen = [(outcome.time, one, facts) for outcome in outcomes for one, facts in with_statistics(outcome.seen)]
        failed = sum(outcome.refused["internal_error"] for outcome in outcomes)
        self.recent.add([remembered(one, facts) for _, one, facts in seen], failed)
        lost = self.log.write(self.log_entry(*each) for each in seen)
        counts = Counter(count for outcome in outcomes for count in counted(outcome))
        counts["petclf_log_lost_total", ()] += lost
        counters = [Metric(name, value, labels) for (name, labels), value in counts.items() if value]
        self.telemetry.write([*counters, *(one for outcome in outcomes for one in measured(outcome)), *state])

    def log_entry(self, time: datetime, seen: Item, facts: dict[str, Any]) -> dict[str, Any]:
        """Return one line of the prediction log: nothing in it tells whose photo it was or what it shows beyond its label."""
        judgement = seen.judgement
        return {
            "time": time.isoformat(timespec="milliseconds"),
            "request_id": seen.id,
            "label": judgement.label,
            "confidence": round(judgement.confidence, 6),
            "unlike": round(judgement.unlike, 6),
            "unsure_because": judgement.unsure_because,
            "version": self.version,
            "photo": {name: round(value, 4) if isinstance(value, float) else value for name, value in facts.items()},
            "milliseconds": {"decode": round(seen.decode_seconds * 1000, 2), "model": round(seen.model_seconds * 1000, 2)},
        }

    def state(self) -> Iterator[Metric]:
        """Yield what the last photos are like, whichever worker answered them."""
        summary = self.recent.summary()
        count = summary["predictions"]
        if not count:
            return
        yield Metric("petclf_recent_confidence", summary["mean_confidence"])
        yield Metric("petclf_recent_unsure_share", summary["unsure"] / count)
        for label, predicted in summary["labels"].items():
            yield Metric("petclf_recent_label_share", predicted / count, (label,))
        for name in STATISTICS if count >= ENOUGH else ():
            if (usual := self.reference.get(name)) and usual["std"] > 0:
                yield Metric("petclf_drift", (summary["statistics"][name] - usual["mean"]) / usual["std"], (name,))


def with_statistics(seen: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yield each photo with its facts, among them what it is like."""
    for start in range(0, len(seen), TOGETHER):
        some = seen[start : start + TOGETHER]
        statistics = photo_statistics(torch.stack([one.pixels for one in some]))
        columns = {name: values.tolist() for name, values in statistics.items()}
        for index, one in enumerate(some):
            yield one, {**one.facts, **{name: values[index] for name, values in columns.items()}}


def counted(outcome: Outcome) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a counter's name and labels for everything that is counted."""
    for seen in outcome.seen:
        yield "petclf_predictions_total", (seen.judgement.label, seen.judgement.unsure_because or "no")
    for code in outcome.refused.elements():
        yield ("petclf_failed_total", ()) if code == "internal_error" else ("petclf_refused_total", (code,))


def measured(outcome: Outcome) -> Iterator[Metric]:
    """Yield how long a batch took and how large it was; nothing of one in which nobody sent a photo."""
    if not outcome.seen and not outcome.refused:
        return
    result = "answered" if outcome.seen else "refused"
    yield Metric("petclf_seconds", outcome.seconds, ("total", result))
    yield Metric("petclf_seconds", outcome.decode_seconds, ("decode", result))
    if outcome.seen:
        yield Metric("petclf_seconds", sum(seen.model_seconds for seen in outcome.seen), ("model", result))
        yield Metric("petclf_batch_photos", len(outcome.seen))


def remembered(seen: Item, facts: dict[str, Any]) -> tuple[str, bool, float, dict[str, float]]:
    judgement = seen.judgement
    statistics = {**facts, "confidence": judgement.confidence, "unlike": judgement.unlike}
    return judgement.label, judgement.unsure_because is not None, seen.decode_seconds + seen.model_seconds, statistics
