"""What a run is to do, written down before it begins: which photos, in which parts, answered by which model.

The parts are fixed pieces of the sorted list of photos. A part that exists is finished, so the same command goes on where it was
killed, and the parts have the same bytes as if it had never been. A run with another plan is refused.
"""

import hashlib
import importlib.metadata
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.errors import BulkError
from bulk.files import Output
from bulk.scorer import READING, Model
from bulk.source import Addresses, Listed, Source

FORMAT = 1
PLAN, PHOTOS, ANSWERS = "plan.json", "photos.parquet", "answers"
PARTS_A_WORKER = 80  # a killed worker loses one part at most: about 1 % with one worker, less with more
LEAST, MOST = 16, 512  # photos of a part
SOFTWARE = ("torch", "pillow", "pillow-heif", "numpy", "pyarrow")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Plan:
    """The facts that must be the same when a run goes on."""

    source: str
    photos: int
    listing: str  # sha256 of the names and sizes
    hosts: list[str]
    model: str
    version: str
    archive: str
    software: dict[str, str]
    part: int  # photos of a part
    left_out: int  # files that are not called like photos
    format: int = FORMAT

    @property
    def parts(self) -> int:
        return -(-self.photos // self.part)

    def photos_of(self, part: int) -> int:
        return min(self.part, self.photos - part * self.part)


def part_name(part: int) -> str:
    return f"part-{part:06d}.parquet"


def plan_of(address: str, source: Source, listed: Listed, model: Model, part: int) -> Plan:
    hosts = sorted(source.hosts) if isinstance(source, Addresses) else []
    return Plan(
        address, len(listed.names), digest(listed), hosts, model.name, model.version, model.sha256,
        software(), part, listed.left_out,
    )  # fmt: skip


def software() -> dict[str, str]:
    """Return what may change a digit of an answer or a byte of a file: versions, and our own code that decides them."""
    ours = [*(ROOT / "handler" / name for name in READING), *(ROOT / "bulk" / name for name in ("rows.py", "scorer.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in ours)).hexdigest()[:12]
    return {**{name: importlib.metadata.version(name) for name in SOFTWARE}, "petclf's code": code}


def photos_of_a_part(photos: int, workers: int) -> int:
    return max(LEAST, min(MOST, photos // (PARTS_A_WORKER * workers)))


def digest(listed: Listed) -> str:
    found = hashlib.sha256()
    for name, stamp in zip(listed.names, listed.stamps, strict=True):
        found.update(name + b"\0" + stamp + b"\0")
    return found.hexdigest()


def begin(output: Output, plan: Plan, names: Sequence[bytes]) -> Plan:
    """Write the plan, or return the one that an earlier run of the same wrote; raise if it is of another."""
    if output.exists(PLAN):
        before = read_plan(output)
        if reasons := differences(before, plan):
            raise BulkError(f"{output.address} was begun {'; '.join(reasons)}; choose another --output, or ask as before")
        return before
    if output.names(ANSWERS):
        raise BulkError(f"{output.address} holds answers without a {PLAN}; choose another --output")
    output.write(PHOTOS, as_listing(names, plan.part))
    output.write(PLAN, (json.dumps(asdict(plan), ensure_ascii=False, indent=1) + "\n").encode())
    return plan


def read_plan(output: Output) -> Plan:
    try:
        content = json.loads(output.read(PLAN))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        return Plan(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise BulkError(f"{output.path(PLAN)} cannot be used: {error}; choose another --output") from None


def differences(before: Plan, now: Plan) -> list[str]:
    """Return in words what is not as it was. How many photos a part has stays as it was."""
    reasons = []
    if (before.photos, before.listing) != (now.photos, now.listing):
        reasons.append(f"with other photos: {before.photos:,} of {before.source}, now {now.photos:,} of {now.source}")
    if before.archive != now.archive:
        was, is_now = f"{before.model} {before.version}", f"{now.model} {now.version}"
        reasons.append(f"by another model: {was}, archive {before.archive[:12]}, now {is_now}, archive {now.archive[:12]}")
    if before.hosts != now.hosts:
        reasons.append(f"with other hosts allowed: {', '.join(before.hosts) or 'none'}, now {', '.join(now.hosts) or 'none'}")
    changed = [f"{name} {before.software.get(name)}" for name in now.software if before.software.get(name) != now.software[name]]
    if changed:
        reasons.append(f"with {', '.join(changed)}, which this environment has in another version")
    return reasons


def as_listing(names: Sequence[bytes], part: int) -> bytes:
    """Return the photos' names as a Parquet file whose row groups are the parts."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": pa.array(names, pa.binary())}), buffer, row_group_size=part, compression="zstd")
    return buffer.getvalue()


def names_of(output: Output, part: int) -> list[bytes]:
    """Return the names of one part's photos."""
    with output.open(PHOTOS) as file:
        found: list[bytes] = pq.ParquetFile(file).read_row_group(part).column("path").to_pylist()
    return found


def left(output: Output, plan: Plan) -> list[int]:
    """Return the parts that are not there yet."""
    there = {int(found[1]) for name in output.names(ANSWERS) if (found := re.fullmatch(r"part-(\d{6})\.parquet", name))}
    return [part for part in range(plan.parts) if part not in there]
