"""What Prometheus learns: counts and times handed on ten times a second, the state every five seconds.

TorchServe's frontend reads metrics from its workers' standard output, a line each. They are written here, many at once,
because TorchServe's own way of writing one line takes longer than all else that a batch costs beside its photos, and because
each writing wakes a thread of the frontend.
"""

import json
import logging
import os
import re
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

from handler.recent import STATISTICS, Recent

logger = logging.getLogger(__name__)

TICK = 0.1
TICKS_A_STATE = 50
ENOUGH = 30  # photos before a shift of their mean means anything
Observation = tuple[str, float, tuple[str, ...]]  # a metric's name, a value, its labels but for the version
UNSAFE = re.compile(r"[^\w .-]")  # TorchServe's line format knows no escapes


class Telemetry:
    """The worker's metrics. TorchServe reads them from standard output, so each costs a line: few a batch, and none a photo."""

    def __init__(self, metrics: Any, version: str, archive: str, recent: Recent, reference: dict[str, Any]) -> None:
        self.metrics = metrics
        self.version = UNSAFE.sub("_", version)
        self.archive = archive
        self.recent = recent
        self.reference = reference
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.observed: list[Observation] = []
        self.lock = threading.Lock()
        self.host = socket.gethostname()

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        with self.lock:
            self.counts[name, tuple(UNSAFE.sub("_", label) for label in labels)] += by

    def observe(self, *observations: Observation) -> None:
        with self.lock:
            self.observed += observations

    def line(self, kind: MetricTypes, name: str, value: float, labels: tuple[str, ...] = ()) -> str:
        metric = self.metrics.get_metric(name, kind)
        text = f"{value:.6f}".rstrip("0").rstrip(".")  # the frontend's parser knows no exponents
        dimensions = ",".join(
            f"{key}:{label}" for key, label in zip(metric.dimension_names, (*labels, self.version), strict=True)
        )
        head = f"[METRICS]{name}.{metric.unit}:{text}|#{dimensions}"
        return f"{head}|#type:{kind.name}|#hostname:{self.host},{int(time.time())}\n"

    def write(self, lines: list[str]) -> None:
        if lines:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()

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
        """Hand on what was counted and observed since the last time."""
        with self.lock:
            counts, self.counts = self.counts, Counter()
            observed, self.observed = self.observed, []
        lines = [self.line(MetricTypes.COUNTER, name, value, labels) for (name, labels), value in counts.items()]
        self.write(lines + [self.line(MetricTypes.HISTOGRAM, *observation) for observation in observed])

    def emit_state(self, queue: tuple[int, int] | None) -> None:
        """Tell what the last predictions look like, and how long the queue is."""
        state = self.state(queue)
        self.write([self.line(MetricTypes.GAUGE, name, value, labels) for name, value, labels in state])

    def state(self, queue: tuple[int, int] | None) -> Iterator[Observation]:
        yield "petclf_info", 1, (self.archive[:12] or "unknown",)
        if queue is not None:
            yield "petclf_queue_depth", queue[0], ()
            yield "petclf_workers_ready", queue[1], ()
        summary = self.recent.summary()
        if not summary["predictions"]:
            return
        yield "petclf_recent_confidence", summary["mean_confidence"], ()
        yield "petclf_recent_unsure", summary["unsure"] / summary["predictions"], ()
        for label, count in summary["labels"].items():
            yield "petclf_recent_share", count / summary["predictions"], (UNSAFE.sub("_", label),)
        for name in STATISTICS if summary["predictions"] >= ENOUGH else ():
            if (usual := self.reference.get(name)) and usual["std"] > 0:
                yield "petclf_drift", (summary["statistics"][name] - usual["mean"]) / usual["std"], (name,)


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
