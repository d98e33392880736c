"""Metrics on their way to TorchServe, which reads them from its workers' standard output, a line each.

They are written here, many at once: TorchServe's own way of writing a line takes longer than all else that a batch costs beside
its photos.
"""

import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

UNSAFE = re.compile(r"[^\w .-]")  # TorchServe's line format knows no escapes
HISTOGRAMS = ("petclf_seconds", "petclf_batch_photos")


@dataclass(frozen=True)
class Metric:
    """One value of a metric that metrics.yaml declares, with its labels but for the version."""

    name: str
    value: float
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> MetricTypes:
        if self.name.endswith("_total"):
            return MetricTypes.COUNTER
        return MetricTypes.HISTOGRAM if self.name in HISTOGRAMS else MetricTypes.GAUGE


class Telemetry:
    """The worker's metrics."""

    def __init__(self, declared: Any, version: str) -> None:
        self.declared = declared
        self.version = version
        self.host = socket.gethostname()

    def write(self, metrics: Sequence[Metric]) -> None:
        if metrics:
            sys.stdout.write("".join(self.line(metric) for metric in metrics))
            sys.stdout.flush()

    def line(self, metric: Metric) -> str:
        declared = self.declared.get_metric(metric.name, metric.kind)
        text = f"{metric.value:.6f}".rstrip("0").rstrip(".")  # TorchServe's parser knows no exponents
        labels = [UNSAFE.sub("_", label) for label in (*metric.labels, self.version)]
        dimensions = ",".join(f"{key}:{label}" for key, label in zip(declared.dimension_names, labels, strict=True))
        head = f"[METRICS]{metric.name}.{declared.unit}:{text}|#{dimensions}"
        return f"{head}|#type:{metric.kind.name}|#hostname:{self.host},{int(time.time())}\n"
