"""One run from its start, or from where the last one ended, to the summary."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulk import cluster, summary
from bulk import plan as plans
from bulk.errors import BulkError, FailedError
from bulk.files import Output, reaching
from bulk.plan import ANSWERS, Plan
from bulk.progress import Progress
from bulk.scorer import Model
from bulk.source import Addresses, source_of
from bulk.work import Job, Report, finish


@dataclass(frozen=True)
class Asked:
    """What somebody wants to have done."""

    photos: str
    output: str
    archive: Path
    workers: int | None = None  # none: what the machine, or the cluster, has
    hosts: frozenset[str] = frozenset()
    part: int | None = None
    address: str | None = None  # of a Ray cluster
    retry: bool = False


MANY = 32  # workers that a cluster is supposed to have


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepare(asked: Asked) -> Job:
    """List the photos and write the plan, or take up the one that is there."""
    model = Model.of(asked.archive)
    if changed := model.other_reading():
        tell(
            f"warning: the archive's handler differs from this checkout's in {', '.join(changed)}: its server may answer otherwise"
        )
    with reaching(asked.photos):
        source = source_of(asked.photos, asked.hosts)
        listed = source.listed()
    if not listed.names:
        raise BulkError(f"no photo in {asked.photos}; {listed.left_out:,} other files are there")
    if isinstance(source, Addresses):
        source.require_allowed(listed.names)
    part = asked.part or plans.photos_of_a_part(len(listed.names), asked.workers or MANY)
    with reaching(asked.output):
        output = Output(asked.output)
        plan = plans.begin(output, plans.plan_of(asked.photos, source, listed, model, part), listed.names)
    return Job(plan, source, output, model)


def score_many(asked: Asked, finish: Callable[[Job, int], Report] = finish) -> dict[str, Any]:
    """Answer every photo and return the summary."""
    started = time.monotonic()
    job = prepare(asked)
    left = plans.left(job.output, job.plan)
    if asked.retry and summary.forget_passing(job.output, job.plan, set(left)):
        left = plans.left(job.output, job.plan)
    answered = there(job.plan, left)
    begin_with(job.plan, answered)
    reports = work_off(asked, job, finish)
    job.output.tidy(ANSWERS)
    facts = {
        "photos": job.plan.photos - answered,
        "found": answered,
        "seconds": round(time.monotonic() - started, 1),
        "worker_seconds": round(sum(report["seconds"] for report in reports), 1),
    }
    return {**summary.summary_of(job.output, job.plan), "run": facts}


def begin_with(plan: Plan, answered: int) -> None:
    begun = f"; {answered:,} are answered already" if answered else ""
    others = f"; {plan.left_out:,} other files are left out" if plan.left_out else ""
    tell(f"{plan.photos:,} photos in {plan.parts:,} parts, by {plan.model} {plan.version} ({plan.archive[:12]}){begun}{others}")


def work_off(asked: Asked, job: Job, finish: Callable[[Job, int], Report]) -> list[Report]:
    """Have all parts finished. Where Ray itself breaks down, start it again, as long as that gets on."""
    reports: list[Report] = []
    left = plans.left(job.output, job.plan)
    while left:
        try:
            reports += with_ray(asked, job, left, finish)
            left = []
        except FailedError as error:
            before, left = len(left), plans.left(job.output, job.plan)
            if len(left) == before:
                raise
            tell(f"warning: {error}; going on with {len(left):,} parts")
    return reports


def with_ray(asked: Asked, job: Job, left: list[int], finish: Callable[[Job, int], Report]) -> list[Report]:
    """Start Ray and have parts finished, showing how far it is; returns the workers' reports."""
    reports = []
    with cluster.connected(asked.address, asked.workers) as ray:
        progress = Progress(job.plan.photos, there(job.plan, left))
        try:
            for report in cluster.run(ray, job, left, asked.workers, finish):
                reports.append(report)
                progress.add(report["photos"], report["refused"])
        finally:
            progress.close()
    return reports


def there(plan: Plan, left: list[int]) -> int:
    """Return how many photos are answered when these parts are left."""
    return plan.photos - sum(map(plan.photos_of, left))
