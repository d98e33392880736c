"""A plan fixes what is done; a run goes on only with the plan that it began with."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bulk import plan as plans
from bulk.errors import BulkError
from bulk.files import Output, reaching
from bulk.plan import Plan
from bulk.scorer import Model
from bulk.source import Listed, source_of

NAMES = [f"{number:03d}.jpg".encode() for number in range(50)]


@pytest.fixture
def plan(model: Model, tmp_path: Path) -> Plan:
    (tmp_path / "photos").mkdir()
    listed = Listed(NAMES, [b"7"] * 50, 3)
    return plans.plan_of("photos", source_of(str(tmp_path / "photos")), listed, model, 16)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "answers"))


def test_parts_hold_every_photo_once_in_order(plan: Plan, output: Output) -> None:
    plans.begin(output, plan, NAMES)
    assert [plans.names_of(output, part) for part in range(plan.parts)] == [NAMES[:16], NAMES[16:32], NAMES[32:48], NAMES[48:]]
    assert [plan.photos_of(part) for part in range(plan.parts)] == [16, 16, 16, 2]


def test_what_is_there_is_not_left(plan: Plan, output: Output) -> None:
    plans.begin(output, plan, NAMES)
    for name in ("part-000001.parquet", ".part-000002.parquet.host.7.tmp", "part-000003.parquet", "notes.txt"):
        output.write(f"answers/{name}", b"")
    assert plans.left(output, plan) == [0, 2]


def test_a_part_is_small_enough_to_be_lost() -> None:
    assert [plans.photos_of_a_part(photos, 2) for photos in (1, 1_000, 22_589, 1_000_000)] == [16, 16, 141, 512]
    assert plans.photos_of_a_part(1_000_000, 64) == 195


def test_the_same_plan_goes_on_with_the_parts_that_it_began_with(plan: Plan, output: Output) -> None:
    assert plans.begin(output, plan, NAMES) == plan
    assert plans.begin(output, replace(plan, part=99, source="moved/photos"), NAMES) == plan


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"photos": 49, "source": "others"}, "with other photos: 50 of photos, now 49 of others"),
        ({"listing": "0" * 64}, "with other photos: 50 of photos, now 50 of photos"),
        ({"archive": "0" * 64, "version": "9.0.0"}, "by another model: petclf {version}, archive {archive:.12}, now petclf 9.0.0, archive 000000000000"),
        ({"hosts": ["example.org"]}, "with other hosts allowed: none, now example.org"),
        ({"software": {"torch": "9.9"}}, "with torch {software[torch]}, which this environment has in another version"),
    ],
)  # fmt: skip
def test_another_plan_is_refused_and_says_what_differs(change: dict[str, object], told: str, plan: Plan, output: Output) -> None:
    plans.begin(output, plan, NAMES)
    reason = told.format(version=plan.version, archive=plan.archive, software=plan.software)
    with pytest.raises(BulkError, match=re.escape(f"was begun {reason}; choose another --output, or ask as before")):
        plans.begin(output, replace(plan, **change), NAMES)  # type: ignore[arg-type]


def test_a_photo_of_another_size_is_another_list() -> None:
    assert plans.digest(Listed(NAMES, [b"7"] * 50)) != plans.digest(Listed(NAMES, [*[b"7"] * 49, b"8"]))


def test_answers_without_a_plan_are_not_touched(plan: Plan, output: Output) -> None:
    output.write("answers/part-000000.parquet", b"somebody's")
    with pytest.raises(BulkError, match=r"holds answers without a plan\.json; choose another --output"):
        plans.begin(output, plan, NAMES)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1}'])
def test_a_damaged_plan_is_refused(content: bytes, plan: Plan, output: Output) -> None:
    output.write("plan.json", content)
    with pytest.raises(BulkError, match=r"plan\.json cannot be used: .*; choose another --output"):
        plans.begin(output, plan, NAMES)


def test_a_file_is_whole_or_absent(output: Output, tmp_path: Path) -> None:
    output.write("answers/a", b"first")
    (tmp_path / "answers" / "answers" / ".b.host.7.tmp").write_bytes(b"ha")
    with pytest.raises(TypeError):
        output.write("answers/a", "no bytes")  # type: ignore[arg-type]
    assert output.read("answers/a") == b"first"
    output.tidy("answers")
    assert output.names("answers") == ["a"]


def test_a_bucket_that_cannot_be_used_is_told_in_one_line() -> None:
    with pytest.raises(BulkError, match="s3://bucket cannot be used: LookupError: no credentials"):
        with reaching("s3://bucket"):
            raise LookupError("no credentials\nand more")
    with pytest.raises(LookupError):  # on a disk it is our own mistake
        with reaching("folder"):
            raise LookupError
