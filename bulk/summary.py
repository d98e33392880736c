"""What the answers are like as a whole, counted part by part, so that memory does not grow with the photos."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.errors import BulkError
from bulk.files import Output
from bulk.plan import ANSWERS, Plan, part_name

SUMMARY = "summary.json"
SHOWN = 50  # refused photos that are named; all are in the answers
BINS = 20  # of confidence, from 0 to 1
PASSING = ("cannot_read", "url_failed", "busy", "out_of_time")  # refusals that another try may end


def summary_of(output: Output, plan: Plan) -> dict[str, Any]:
    """Count the rows of all parts; raise unless there is exactly one a photo."""
    codes: Counter[str | None] = Counter()
    labels: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    confidence = [0] * BINS
    shown: list[dict[str, str]] = []
    for table in tables(output, plan):
        codes.update(table["error_code"].to_pylist())
        labels.update(label for label in table["label"].to_pylist() if label is not None)
        reasons.update(reason for reason in table["unsure_because"].to_pylist() if reason is not None)
        forms.update(table["form"].to_pylist())
        for value in table["confidence"].drop_null().to_pylist():
            confidence[min(int(value * BINS), BINS - 1)] += 1
        if len(shown) < SHOWN:
            refused = table.filter(pa.compute.is_valid(table["error_code"])).select(["path", "error_code", "error"]).to_pylist()
            shown += refused[: SHOWN - len(shown)]
    answered = codes.pop(None, 0)
    return {
        "plan": asdict(plan),
        "photos": plan.photos,
        "answered": answered,
        "refused": dict(sorted(codes.items(), key=lambda one: (-one[1], str(one[0])))),
        "labels": dict(sorted(labels.items())),
        "unsure": dict(sorted(reasons.items())),
        "confidence": confidence,
        "forms": dict(sorted(forms.items())),
        "shown": shown,
    }


def tables(output: Output, plan: Plan) -> Iterator[pa.Table]:
    """Yield each part; raise where one is missing, or does not hold as many rows as it has photos."""
    wanted = ["path", "label", "confidence", "unsure_because", "form", "error_code", "error"]
    for part in range(plan.parts):
        name = f"{ANSWERS}/{part_name(part)}"
        try:
            with output.open(name) as file:
                table = pq.ParquetFile(file).read(columns=wanted)
        except FileNotFoundError:
            raise BulkError(
                f"{output.path(name)} is missing; on a cluster, all machines must see --output: a shared folder or a bucket"
            ) from None
        if table.num_rows != plan.photos_of(part):
            raise BulkError(
                f"{output.path(name)} holds {table.num_rows} rows, not {plan.photos_of(part)}; remove it and run again"
            )
        yield table


def forget_passing(output: Output, plan: Plan, parts: set[int]) -> int:
    """Remove the parts that hold a photo which another try may be able to read; returns how many."""
    removed = 0
    for part in sorted(set(range(plan.parts)) - parts):
        name = f"{ANSWERS}/{part_name(part)}"
        with output.open(name) as file:
            codes = set(pq.ParquetFile(file).read(columns=["error_code"])["error_code"].to_pylist())
        if codes & set(PASSING):
            output.remove(name)
            removed += 1
    return removed
