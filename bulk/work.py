"""What a worker does with one part: read, answer, write, and report. Knows no Ray: cluster.py brings the parts here."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bulk import plan as plans
from bulk.careful import survivors, try_to_read
from bulk.files import Output
from bulk.plan import ANSWERS, Plan
from bulk.scorer import Model, Scorer
from bulk.source import Source

Report = dict[str, Any]
DEATHS = 2  # of workers at the same part; then a photo of it is suspected, and each is tried in a process of its own


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
    with begun(job.output, part) as before:
        photos = job.source.read_all(plans.names_of(job.output, part))
        content, rows = scorer_of(job.model).as_part(survivors(photos, try_to_read) if before >= DEATHS else photos)
        job.output.write(name, content)
    refused = sum("error_code" in row for row in rows)
    return {**report, "refused": refused, "seconds": time.perf_counter() - started}


@contextlib.contextmanager
def begun(output: Output, part: int) -> Iterator[int]:
    """Leave a mark while a part is worked on; yields how many have begun it before and did not live to take the mark away."""
    mark = f"{ANSWERS}/.{plans.part_name(part)}.begun"
    before = len(output.read(mark)) if output.exists(mark) else 0
    output.write(mark, b"." * (before + 1))
    yield before
    output.remove(mark)
