"""What Prometheus learns: counts added up and handed on once a second, times a batch, the state every five seconds."""

import json
import logging
import os
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

from handler.recent import STATISTICS, Recent

logger = logging.getLogger(__name__)

TICK = 1.0
TICKS_A_STATE = 5
ENOUGH = 30  # photos before a shift of their mean means anything
UNSAFE = re.compile(r"[^\w .-]")  # TorchServe's line format knows no escapes


class Telemetry:
    """The worker's metrics. TorchServe reads them from standard output, so each costs a line: few, and none a photo."""

    def __init__(self, metrics: Any, version: str, archive: str, recent: Recent, reference: dict[str, Any]) -> None:
        self.metrics = metrics
        self.version = UNSAFE.sub("_", version)
        self.archive = archive
        self.recent = recent
        self.reference = reference
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.lock = threading.Lock()

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        with self.lock:
            self.counts[name, tuple(UNSAFE.sub("_", label) for label in labels)] += by

    def observe(self, name: str, value: float, *labels: str) -> None:
        self.emit(MetricTypes.HISTOGRAM, name, value, *labels)

    def emit(self, kind: MetricTypes, name: str, value: float, *labels: str) -> None:
        text = f"{value:.6f}".rstrip("0").rstrip(".")  # its parser knows no exponents
        self.metrics.get_metric(name, kind).add_or_update(float(text), [*labels, self.version])

    def start(self, describe: Callable[[], tuple[int, int] | None]) -> None:
        threading.Thread(target=self.run, args=(describe,), name="telemetry", daemon=True).start()

    def run(self, describe: Callable[[], tuple[int, int] | None]) -> None:
        pause = threading.Event()
        tick = 0
        while True:
            try:
                self.flush()
                if tick % TICKS_A_STATE == 0:
                    self.emit_state(describe())
            except Exception:  # answers must go on, and so must the next tick
                logger.warning("metrics could not be sent", exc_info=True)
            tick += 1
            pause.wait(TICK)

    def flush(self) -> None:
        """Hand on what was counted since the last time."""
        with self.lock:
            counts, self.counts = self.counts, Counter()
        for (name, labels), value in counts.items():
            self.emit(MetricTypes.COUNTER, name, value, *labels)

    def emit_state(self, queue: tuple[int, int] | None) -> None:
        """Tell what the last predictions look like, and how long the queue is."""
        gauge = MetricTypes.GAUGE
        self.emit(gauge, "petclf_info", 1, self.archive[:12] or "unknown")
        if queue is not None:
            self.emit(gauge, "petclf_queue_depth", queue[0])
            self.emit(gauge, "petclf_workers_ready", queue[1])
        summary = self.recent.summary()
        if not summary["predictions"]:
            return
        self.emit(gauge, "petclf_recent_confidence", summary["mean_confidence"])
        self.emit(gauge, "petclf_recent_unsure", summary["unsure"] / summary["predictions"])
        for label, count in summary["labels"].items():
            self.emit(gauge, "petclf_recent_share", count / summary["predictions"], UNSAFE.sub("_", label))
        for name in STATISTICS if summary["predictions"] >= ENOUGH else ():
            if (usual := self.reference.get(name)) and usual["std"] > 0:
                self.emit(gauge, "petclf_drift", (summary["statistics"][name] - usual["mean"]) / usual["std"], name)


def queue_reader(name: str, version: str) -> Callable[[], tuple[int, int] | None]:
    """Return what asks TorchServe how many requests wait and how many workers are ready; nothing without its address."""
    base = os.environ.get("PETCLF_MANAGEMENT_URL")

    def read() -> tuple[int, int] | None:
        if not base:
            return None
        with urllib.request.urlopen(f"{base}/models/{name}/{version}", timeout=2) as response:
            model = json.load(response)[0]
        return model["jobQueueStatus"]["pendingRequests"], sum(worker["status"] == "READY" for worker in model["workers"])

    return read
