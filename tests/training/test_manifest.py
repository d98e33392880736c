"""Any folder or zip of photos becomes a manifest that can be trusted."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import draw_folder
from tests.drawing import draw_photo, encoded
from training.errors import UserError
from training.manifest import Manifest, build_manifest, label_and_split, main, own_split


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


def test_adding_photos_never_moves_an_old_one_to_another_split(photo_folder: Path) -> None:
    before = by_name(build_manifest(photo_folder))
    for seed in range(500, 540):
        draw_photo("cat", seed).save(photo_folder / "cat" / f"new.{seed}.jpg")

    after = by_name(build_manifest(photo_folder))

    assert {name: after[name] for name in before} == before


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


def test_given_splits_are_kept_when_asked(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 100)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for seed in range(start, start + 12):
                draw_photo(label, seed).save(folder / f"{seed}.jpg")

    kept = build_manifest(tmp_path / "photos", keep_splits=True)
    divided = build_manifest(tmp_path / "photos")

    assert {Path(row.path).parts[-3] == row.split for row in kept.rows if row.verdict == "ok"} == {True}
    assert all(row.split == own_split(row.sha256) for row in divided.rows if row.split)


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
    monkeypatch.chdir(Path(__file__).parents[2])
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
    monkeypatch.chdir(Path(__file__).parents[2])
    Image.new("RGB", (80, 80), "white").save(photo_folder / "dog" / "blank.png")
    main([str(photo_folder), "--output", str(tmp_path / "data" / "manifest.csv")])

    with Image.open(tmp_path / "data" / "report" / "contact_sheet.png") as sheet:
        assert sheet.size == (960, 148)
    assert "not a photo: `" in (tmp_path / "data" / "report" / "report.md").read_text()
