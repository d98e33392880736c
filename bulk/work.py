"""What a worker does with one part: read, answer, write, and report. Knows no Ray: cluster.py brings the parts here."""

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bulk import plan as plans
from bulk.files import Output
from bulk.plan import ANSWERS, Plan
from bulk.scorer import Model, Scorer
from bulk.source import Source

Report = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs; the same for all of them."""

    plan: Plan
    source: Source
    output: Output
    model: Model = field(repr=False)


@lru_cache(maxsize=1)
def scorer_of(model: Model) -> Scorer:
    """Return this process's model: loaded once, whatever number of parts come here."""
    return Scorer(model)


def finish(job: Job, part: int) -> Report:
    """Write a part unless it is there; returns what there is to report.

    The part is written whole or not at all, and always with the same bytes: whoever does it twice, or at the same time, harms nothing.
    """
    started = time.perf_counter()
    name = f"{ANSWERS}/{plans.part_name(part)}"
    report = {"part": part, "photos": job.plan.photos_of(part), "refused": 0, "seconds": 0.0}
    if job.output.exists(name):
        return report
    content, rows = scorer_of(job.model).as_part(job.source.read_all(plans.names_of(job.output, part)))
    job.output.write(name, content)
    refused = Counter(row.get("error_code") for row in rows)
    return {**report, "refused": len(rows) - refused[None], "seconds": time.perf_counter() - started}
