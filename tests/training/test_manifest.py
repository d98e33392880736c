"""Any folder or zip of photos becomes a manifest that can be trusted."""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import draw_folder
from tests.drawing import draw_photo, encoded
from tests.training.conftest import run_module, write_params
from training.errors import UserError
from training.held_out import copy_test_photos
from training.manifest import (
    Found,
    Manifest,
    Row,
    build_manifest,
    hold_out_enough,
    inspect_file,
    judge,
    label_and_split,
    main,
    own_split,
    place_in_line,
)


def by_name(manifest: Manifest) -> dict[str, tuple[str, str, str]]:
    return {Path(row.path).name: (row.label, row.split, row.verdict) for row in manifest.rows}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/1.jpg", ("cat", "")),
        ("PetImages/Cat/0.jpg", ("cat", "")),
        ("train/cat/1.jpg", ("cat", "train")),
        ("training_set/dogs/dog.5.jpg", ("dogs", "train")),
        ("data/Test_Set/Dog/1.png", ("dog", "test")),
        ("cat.0.jpg", ("cat", "")),
        ("dog_12.jpg", ("dog", "")),
        ("validation/cat.7.jpg", ("cat", "val")),
        ("photos/golden retriever/1.jpg", ("golden retriever", "")),
        ("猫/1.jpg", ("猫", "")),
        ("Кошка/1.jpg", ("Кошка", "")),
        ("cat (3).jpg", ("cat", "")),
        ("american_bulldog_100.jpg", ("american_bulldog", "")),
        ("IMG_2041.jpg", ("", "")),
        ("photos/DSC00017.jpg", ("", "")),
        ("train/20240501_1200.jpg", ("", "train")),
        ("IMG_20240501_120000.jpg", ("", "")),
        ("550e8400-e29b-41d4-a716-446655440000.jpg", ("", "")),
        ("Rex.jpg", ("", "")),
        ("17.jpg", ("", "")),
    ],
)
def test_the_label_is_what_the_folder_or_the_file_is_called(path: str, expected: tuple[str, str]) -> None:
    assert label_and_split(path) == expected


def test_a_zip_gives_the_same_photos_as_its_folder(photo_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in photo_folder.rglob("*.jpg"):
            target.write(file, f"PetImages/{file.parent.name.title()}/{file.name}")

    from_zip, from_folder = build_manifest(archive), build_manifest(photo_folder)

    assert from_zip.digest == from_folder.digest
    assert from_zip.labels == ["cat", "dog"]


def test_a_large_label_is_split_eight_to_one_to_one_by_the_hash_alone() -> None:
    """The released model's test split depends on it."""
    tenths = {hash_of(number): int(hash_of(number)[:8], 16) % 10 for number in range(2000)}
    expected = {sha256: "train" if tenth < 8 else "val" if tenth == 8 else "test" for sha256, tenth in tenths.items()}

    for count in (100, 1000, 1_000_000):
        assert {sha256: own_split(sha256, count) for sha256 in tenths} == expected


def test_a_small_label_has_larger_shares_held_out() -> None:
    shares = {}
    for count in (15, 50, 75, 100):
        splits = Counter(own_split(hash_of(number), count) for number in range(20_000))
        shares[count] = tuple(round(splits[name] / 20_000, 2) for name in ("train", "val", "test"))

    assert shares == {15: (0.6, 0.2, 0.2), 50: (0.6, 0.2, 0.2), 75: (0.74, 0.13, 0.13), 100: (0.8, 0.1, 0.1)}


@pytest.mark.parametrize("photos", [15, 20, 50, 99, 400])
def test_each_split_of_a_label_has_at_least_five_photos(photos: int) -> None:
    for draw in range(50):
        splits = Counter(split for _, split in splits_of(range(draw * 1000, draw * 1000 + photos)))
        assert min(splits["val"], splits["test"]) >= 5
        assert splits.total() == photos


def test_adding_photos_moves_a_photo_only_out_of_validation_or_test_into_training() -> None:
    moves = Counter()
    for draw in range(30):
        start = draw * 1000
        before = dict(splits_of(range(start, start + 15)))
        for photos in range(16, 130):
            after = dict(splits_of(range(start, start + photos)))
            moves.update((before[name], after[name]) for name in before)
            before = after

    assert set(moves) == {("train", "train"), ("val", "val"), ("test", "test"), ("val", "train"), ("test", "train")}


def hash_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def splits_of(numbers: range) -> list[tuple[str, str]]:
    """Split photos of one label that have these contents: their hashes and splits."""
    nothing = {"split": "", "width": 9, "height": 9, "phash": "0", "verdict": "ok"}
    rows = [Row(path=f"{number}.jpg", label="cat", sha256=hash_of(number), **nothing) for number in numbers]
    return [(row.sha256, row.split) for row in hold_out_enough(judge(rows), [])]


def test_adding_photos_to_a_folder_brings_no_old_photo_into_another_held_out_split(photo_folder: Path) -> None:
    before = by_name(build_manifest(photo_folder))
    for seed in range(500, 540):
        draw_photo("cat", seed).save(photo_folder / "cat" / f"new.{seed}.jpg")

    after = by_name(build_manifest(photo_folder))

    assert {name: after[name] for name in before if before[name][0] == "dog" or before[name][1] == "train"} == {
        name: row for name, row in before.items() if row[0] == "dog" or row[1] == "train"
    }
    assert {after[name][1] for name in before if before[name][1] == "test"} <= {"test", "train"}
    assert {after[name][1] for name in before if before[name][1] == "val"} <= {"val", "train"}


def test_what_is_held_out_for_a_small_label_leaves_its_look_alikes_behind() -> None:
    rows = [row for row in few_rows(20) if row.split == "train"]
    by_place = sorted(range(len(rows)), key=lambda index: place_in_line(rows[index].sha256))
    first, second, third = by_place[:3]

    moved = hold_out_enough(rows, [sorted((first, third))])

    assert [(moved[index].split, moved[index].verdict) for index in (first, second, third)] == [
        ("test", "ok"), ("test", "ok"), ("", "near_duplicate"),
    ]  # fmt: skip
    assert Counter(row.split for row in moved)["test"] == 5


def few_rows(count: int) -> list[Row]:
    nothing = {"split": "", "width": 9, "height": 9, "phash": "0", "verdict": "ok"}
    return judge([Row(path=f"{number}.jpg", label="cat", sha256=hash_of(number), **nothing) for number in range(count)])


def test_a_label_with_too_few_photos_is_named_with_how_many_are_missing(tmp_path: Path) -> None:
    draw_folder(tmp_path / "photos", ("cat",), 20)
    draw_folder(tmp_path / "photos", ("dog",), 12)
    draw_folder(tmp_path / "photos", ("兎 と亀",), 3)
    (tmp_path / "photos" / "fox").mkdir()
    (tmp_path / "photos" / "fox" / "1.jpg").write_text("no photo")

    with pytest.raises(UserError) as refused:
        build_manifest(tmp_path / "photos")

    assert str(refused.value) == (
        "each label needs 5 usable photos in each split: dog has 12 and lacks 4 (4 in train); "
        "fox has 0 and lacks 15 (5 in train, 5 in val, 5 in test); 兎 と亀 has 3 and lacks 12 (5 in train, 5 in val, 2 in test)"
    )


def test_twenty_labels_of_fifty_photos_each(tmp_path: Path) -> None:
    labels = (*(f"label {number}" for number in range(17)), "猫", "Кошка", "golden retriever")
    draw_folder(tmp_path / "photos", labels, 50)

    build_manifest(tmp_path / "photos").write(tmp_path / "manifest.csv")

    manifest = Manifest.read(tmp_path / "manifest.csv")
    assert manifest.labels == sorted(labels)
    count = Counter((row.label, row.split) for row in manifest.rows)
    assert min(count[label, split] for label in labels for split in ("val", "test")) >= 5
    assert min(count[label, "train"] for label in labels) >= 20
    assert {row.verdict for row in manifest.rows} == {"ok"}


def test_near_duplicates_never_straddle_two_splits(photo_folder: Path) -> None:
    for file in sorted(photo_folder.rglob("*.jpg"))[:60]:  # saved again, smaller and worse: another content hash
        with Image.open(file) as photo:
            photo.resize((72, 60)).save(file.with_name(f"{file.stem}.copy.jpg"), quality=70)

    rows = by_name(build_manifest(photo_folder))

    pairs = [(rows[name], rows[name.replace(".jpg", ".copy.jpg")]) for name in rows if name.replace(".jpg", ".copy.jpg") in rows]
    assert len(pairs) == 60
    assert all(one[1] == other[1] or "near_duplicate" in (one[2], other[2]) for one, other in pairs)
    assert sum("near_duplicate" in (one[2], other[2]) for one, other in pairs) > 5
    held_out = [one for pair in pairs for one in pair if one[2] == "near_duplicate"]
    assert {split for _, split, _ in held_out} == {""}


def test_every_file_gets_its_verdict_and_nothing_is_deleted(photo_folder: Path) -> None:
    whole = encoded(draw_photo("cat", 900))
    (photo_folder / "cat" / "a.first.jpg").write_bytes(whole)
    (photo_folder / "cat" / "a.second.jpg").write_bytes(whole)
    (photo_folder / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photo_folder / "cat" / "text.jpg").write_text("no photo at all")
    Image.new("RGB", (80, 80), "white").save(photo_folder / "dog" / "blank.png")
    both = encoded(draw_photo("dog", 901))
    (photo_folder / "cat" / "both.jpg").write_bytes(both)
    (photo_folder / "dog" / "both too.jpg").write_bytes(both)
    files = sorted(photo_folder.rglob("*.*"))

    rows = by_name(build_manifest(photo_folder))

    names = ("a.first.jpg", "a.second.jpg", "cut.jpg", "text.jpg", "blank.png", "both.jpg", "both too.jpg")
    verdicts = ["ok", "duplicate", "unreadable", "unreadable", "not_a_photo", "two_labels", "two_labels"]
    assert [rows[name][2] for name in names] == verdicts
    assert sorted(photo_folder.rglob("*.*")) == files


def test_a_damaged_member_of_a_zip_is_left_out(tmp_path: Path) -> None:
    draw_folder(tmp_path / "photos", ("cat", "dog"), 20)
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "photos").rglob("*.jpg")):
            file.write(path, path.relative_to(tmp_path / "photos").as_posix())
        damaged = file.infolist()[3]
    content = bytearray(archive.read_bytes())
    content[damaged.header_offset + 200] ^= 0xFF
    archive.write_bytes(content)

    manifest = build_manifest(archive)

    assert [(Path(row.path).name, row.verdict) for row in manifest.rows if not row.split] == [
        (Path(damaged.filename).name, "unreadable")
    ]


def test_a_decoder_that_fails_in_its_own_way_leaves_a_photo_out(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("Failed to decode frame 0")

    monkeypatch.setattr("training.manifest.open_photo", fail)

    row, _ = inspect_file(Found(str(next(photo_folder.rglob("*.jpg"))), "cat", ""))

    assert (row.verdict, row.label, len(row.sha256)) == ("unreadable", "cat", 64)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_a_name_that_is_not_utf_8_is_told(photo_folder: Path) -> None:
    (photo_folder / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")

    with pytest.raises(UserError, match=r"the name of 'cat/caf\\udce9.jpg' in .* is not UTF-8, and 0 more; rename them"):
        build_manifest(photo_folder)


def test_given_splits_are_kept_when_asked(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 100), ("validation", 200)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for seed in range(start, start + 12):
                draw_photo(label, seed).save(folder / f"{seed}.jpg")

    kept = build_manifest(tmp_path / "photos", keep_splits=True)
    divided = build_manifest(tmp_path / "photos")

    given = {"train": "train", "test": "test", "validation": "val"}
    assert {given[Path(row.path).parts[-3]] == row.split for row in kept.rows if row.verdict == "ok"} == {True}
    for file in (tmp_path / "photos").rglob("*.jpg"):
        (tmp_path / "flat" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "flat" / file.parent.name)
    assert divided.digest == build_manifest(tmp_path / "flat").digest


def test_given_splits_that_lack_photos_are_refused(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 4), ("val", 0)):
        draw_folder(tmp_path / "photos" / split, ("cat", "dog"), count)

    with pytest.raises(UserError) as refused:
        build_manifest(tmp_path / "photos", keep_splits=True)

    assert "dog has 12 and lacks 6 (5 in val, 1 in test)" in str(refused.value)


def test_a_manifest_survives_writing_and_reading(photo_folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(photo_folder)
    manifest.write(tmp_path / "manifest.csv")

    read = Manifest.read(tmp_path / "manifest.csv")

    assert read.rows == manifest.rows
    assert read.digest == manifest.digest


@pytest.mark.parametrize(
    ("labels", "files", "message"),
    [
        ((), {}, "no photos in photos"),
        (("cat",), {}, "two labels or more are needed, found cat"),
        ((), {"cat/1.jpg": "x", "dog/1.jpg": "y"}, "none of the 2 files in photos can be read as a photo"),
    ],
)
def test_photos_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...], files: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    folder.mkdir()
    draw_folder(folder, labels, 3)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    with pytest.raises(UserError, match=message):
        build_manifest(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["IMG_1.jpg", "DSC_2.jpg"], "2 of the 2 photos in photos have no label, the first is photos/DSC_2.jpg"),
        (["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "IMG_1.jpg"], "1 of the 4 photos in photos have no label, the first is photos/IMG_1.jpg"),
        (["cat.1.jpg", "dog.1.jpg", "Rex.jpg", "a1b2c3.jpg"], "2 of the 4 photos in photos have no label, the first is photos/Rex.jpg"),
    ],
)  # fmt: skip
def test_photos_without_a_label_are_refused_and_the_old_manifest_stays(
    tmp_path: Path, photo_folder: Path, files: list[str], message: str
) -> None:
    write_params(tmp_path)
    assert run_module("training.manifest", photo_folder, cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.*")}
    photo_folder.rename(tmp_path / "old")
    for name in files:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        draw_photo("cat", len(name)).save(tmp_path / "photos" / name)

    result = run_module("training.manifest", "photos", cwd=tmp_path)

    advice = "put photos into photos/<label>/, or name them <label>.1.jpg"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {message}: {advice}\n")
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.*")} == before


def test_a_broken_zip_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "photos.zip"
    broken.write_text("not a zip")

    with pytest.raises(UserError, match="as a zip file"):
        build_manifest(broken)
    with pytest.raises(UserError, match="give a folder or a zip file"):
        build_manifest(tmp_path / "nowhere")


def test_a_failing_run_leaves_the_old_manifest_untouched(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_params(tmp_path).parent)
    output = tmp_path / "data" / "manifest.csv"
    main([str(photo_folder), "--output", str(output)])
    before = output.read_bytes()

    with pytest.raises(UserError):
        main([str(tmp_path / "nowhere"), "--output", str(output)])

    assert output.read_bytes() == before
    report = json.loads((output.parent / "report" / "report.json").read_text())
    assert report["verdicts"] == {"ok": 120}
    assert report["labels"] == ["cat", "dog"]


def test_the_contact_sheet_shows_what_was_left_out(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_params(tmp_path).parent)
    Image.new("RGB", (80, 80), "white").save(photo_folder / "dog" / "blank.png")
    main([str(photo_folder), "--output", str(tmp_path / "data" / "manifest.csv")])

    with Image.open(tmp_path / "data" / "report" / "contact_sheet.png") as sheet:
        assert sheet.size == (960, 148)
    assert "not a photo: `" in (tmp_path / "data" / "report" / "report.md").read_text()


def test_photos_of_several_places_are_one_data_set(photo_folder: Path, tmp_path: Path) -> None:
    draw_folder(tmp_path / "later", ("cat", "dog"), 3)
    for seed, path in enumerate(sorted((tmp_path / "later").rglob("*.jpg"))):
        draw_photo(path.parent.name, 700 + seed).save(path)
    table = tmp_path / "later" / "labels.csv"
    names = [path.relative_to(table.parent).as_posix() for path in sorted(table.parent.rglob("*.jpg"))]
    table.write_text("photo,label\n" + "".join(f"{name},{name[:3].title()}\n" for name in names))

    together = build_manifest(photo_folder, table)
    twice = build_manifest(photo_folder, table, tmp_path / "later")

    before = {row.path for row in build_manifest(photo_folder).rows}
    assert {row.path for row in together.rows} == before | {(table.parent / name).as_posix() for name in names}
    assert (together.labels, twice.digest) == (["cat", "dog"], together.digest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no photos; it needs a line `photo,label` and then a line for each photo"),
        ("photo,label\n", "lists no photos"),
        ("a.jpg,cat\nb.jpg,dog\n", "line 2 of .* has no photo or no label; its columns must be called photo and label"),
        ("photo,label\na.jpg,cat\nb.jpg,\n", "line 3 of .* has no photo or no label"),
    ],
)
def test_a_list_without_photos_or_labels_is_told(tmp_path: Path, text: str, reason: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)

    with pytest.raises(UserError, match=reason):
        build_manifest(table)


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"photo,label\nc\xe4t.jpg,cat\n")

    for name in ("latin.csv", "missing.csv"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            build_manifest(tmp_path / name)


def test_the_test_photos_are_copied_into_folders_of_their_labels(photo_folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(photo_folder)
    wanted = {(row.label, row.sha256) for row in manifest.split("test")}

    copied = copy_test_photos(manifest, tmp_path / "held-out", 1000), copy_test_photos(manifest, tmp_path / "fewer", 3)

    def found(folder: Path) -> set[tuple[str, str]]:
        return {(path.parent.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.rglob("*.*")}

    assert copied == (len(wanted), 3)
    assert found(tmp_path / "held-out") == wanted
    assert len(found(tmp_path / "fewer") & wanted) == 3
