"""Likely wrong labels are listed for a person to look at."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import draw_folder
from tests.training.conftest import run_module, write_params
from training import doubtful, efficientnet
from training.data_report import MOST_OF_A_KIND, Doubt, write_data_report
from training.doubtful import features_of, find_suspects, find_unlike, held_out_probabilities
from training.errors import UserError
from training.manifest import Manifest, Row


def test_a_photo_is_doubtful_where_another_label_is_confident_and_the_likeliest() -> None:
    probabilities = torch.tensor(
        [
            [0.9, 0.1],
            [0.7, 0.3],
            [0.2, 0.8],  # as confident as label 1 usually is, but called 0
            [0.48, 0.52],  # likelier 1, but not confident
            [0.1, 0.9],
            [0.3, 0.7],
            [0.95, 0.05],  # confident 0, but called 1: the most doubtful
        ]
    )

    suspects = find_suspects(probabilities, torch.tensor([0, 0, 0, 0, 1, 1, 1]))

    assert (suspects.photos.tolist(), suspects.labels.tolist()) == ([6, 2], [0, 1])


@pytest.mark.parametrize(
    ("labels", "photos", "expected"),
    [
        (2, 60, [13, 24, 38, 58, 25, 45, 1, 55, 52, 12, 20, 22]),
        (3, 60, [12, 37, 29, 55, 47, 38, 41, 36, 58, 31]),
        (7, 40, [14, 23, 22, 2, 4, 30, 38, 6, 11, 19, 25, 9, 10, 36, 33]),
    ],
)
def test_the_suspects_are_those_of_cleanlab(labels: int, photos: int, expected: list[int]) -> None:
    """As recorded from cleanlab 2.9.0, filter_by="confident_learning", ranked by normalised margin."""
    truth = np.arange(photos) % labels
    logits = np.random.default_rng(labels).normal(size=(photos, labels))
    logits[np.arange(photos), truth] += 1

    suspects = find_suspects(torch.softmax(torch.from_numpy(logits), 1), torch.from_numpy(truth))

    assert suspects.photos.tolist() == expected


def test_swapped_labels_are_found_by_heads_that_have_not_seen_them() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(300) % 3
    seen = torch.randn(300, 16, generator=generator) * 0.3 + 4 * torch.eye(16)[truth]
    swapped = torch.tensor([6, 100, 200])  # one of each label
    given = truth.clone()
    given[swapped] = (given[swapped] + 1) % 3

    suspects = find_suspects(held_out_probabilities(seen, given, 3), given)

    assert dict(zip(suspects.photos.tolist(), suspects.labels.tolist(), strict=True)) == {
        photo: int(truth[photo]) for photo in swapped.tolist()
    }


def test_what_resembles_no_other_photo_is_listed_the_strangest_first() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(2, 64, generator=generator)[torch.arange(200) % 2]
    seen = kinds + torch.randn(200, 64, generator=generator) * 0.3
    seen[[30, 90]] = torch.randn(2, 64, generator=generator)
    seen[90] += kinds[90]

    assert find_unlike(seen).tolist() == [30, 90]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with 40 drawn photos of each of two labels, two of them in the wrong folder; what `make data` said."""
    folder = tmp_path_factory.mktemp("doubtful")
    draw_folder(folder / "photos", ("cat", "dog 犬"), 40)
    for label, wrong in (("cat", "dog 犬"), ("dog 犬", "cat")):
        (folder / "photos" / label / f"{label}.0.jpg").rename(folder / "photos" / wrong / "swapped.jpg")
    change_params(folder, 80)
    result = run_module("training.manifest", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def change_params(folder: Path, doubtful_up_to: int) -> None:
    path = write_params(folder)
    params = yaml.safe_load(path.read_text())
    params["data"]["doubtful_up_to"] = doubtful_up_to
    path.write_text(yaml.safe_dump(params))


def test_reading_few_photos_lists_the_swapped_ones(project: tuple[Path, str]) -> None:
    folder, output = project
    report = folder / "data" / "report"

    with (report / "doubtful.csv").open(encoding="utf-8", newline="") as file:
        listed = {line["path"]: (line["label"], line["doubt"]) for line in csv.DictReader(file)}

    assert listed["photos/cat/swapped.jpg"] == ("cat", "rather dog 犬")
    assert listed["photos/dog 犬/swapped.jpg"] == ("dog 犬", "rather cat")
    found = json.loads((report / "report.json").read_text())["doubtful"]
    assert sum(found.values()) == len(listed) < 20
    assert (
        f"doubtful labels: {found['another label is likelier']} another label is likelier, "
        f"{found['unlike all others']} unlike all others; look at data/report/doubtful.png\n" in output
    )
    with Image.open(report / "doubtful.png") as sheet:
        assert sheet.size == (960, (len(listed) + 7) // 8 * 148)
    assert len(Manifest.read(folder / "data" / "manifest.csv").rows) == 80


def test_more_photos_than_wanted_are_looked_at_only_when_asked(project: tuple[Path, str]) -> None:
    folder, _ = project
    report = folder / "data" / "report"
    before = (report / "doubtful.csv").read_text()
    change_params(folder, 79)

    result = run_module("training.manifest", cwd=folder)

    assert "doubtful labels were not looked for: `make doubtful` does it" in result.stdout
    assert not (report / "doubtful.csv").exists()
    assert "Not looked for." in (report / "report.md").read_text()

    asked = run_module("training.doubtful", cwd=folder)

    assert asked.returncode == 0, asked.stderr
    assert (report / "doubtful.csv").read_text() == before


def test_what_was_seen_is_kept_beside_the_pixels(project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = project
    monkeypatch.chdir(folder)
    manifest = Manifest.read(Path("data/manifest.csv"))
    unused = torch.nn.Module()  # has no forward: nothing may be computed again

    seen, truth = features_of(manifest, "train", 64, unused, Path("build/cache"))

    assert seen.shape == (len(manifest.split("train")), efficientnet.CHANNELS)
    assert [manifest.labels[number] for number in truth.tolist()] == [row.label for row in manifest.split("train")]


def test_without_the_pretrained_network_it_says_what_to_install(
    project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project[0])
    monkeypatch.setattr(efficientnet, "PACKAGE", "not_installed")

    assert not doubtful.can_look()
    with pytest.raises(UserError, match="the pretrained weights are not installed"):
        doubtful.main([])


def test_the_report_lists_some_of_many_doubts_and_says_how_many_there_are(tmp_path: Path) -> None:
    nothing = {"split": "train", "sha256": "", "width": 9, "height": 9, "phash": "0", "verdict": "ok"}
    rows = [Row(path=f"{number}.jpg", label="cat", **nothing) for number in range(150)]
    doubts = [Doubt(row, 0.1, "dog") for row in rows[:130]] + [Doubt(row, 0.9, "") for row in rows[130:]]

    write_data_report(Manifest(rows), tmp_path, doubts)

    report = (tmp_path / "report.md").read_text()
    assert f"| another label is likelier | 130 | {MOST_OF_A_KIND} |\n| unlike all others | 20 | 20 |" in report
    assert report.count("| rather dog |") == MOST_OF_A_KIND
    assert len((tmp_path / "doubtful.csv").read_text().splitlines()) == 151

    write_data_report(Manifest(rows), tmp_path, [])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert "None found." in (tmp_path / "report.md").read_text()
