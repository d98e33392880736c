"""The step that chooses sees no photo that the step that measures needs; the step that measures chooses nothing."""

import hashlib
import shutil
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from handler.photo_input import decode_photo
from tests.conftest import draw_folder
from tests.drawing import draw_photo, encoded
from tests.training.conftest import run_module, write_params
from training.dataset import spread
from training.errors import UserError
from training.figures import Promise, read_figures
from training.fit import in_words
from training.fitted import read_calibration, write_calibration
from training.manifest import Manifest


@pytest.fixture(scope="module")
def fitted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained project with photos of other things and of a camera, fitted but not measured."""
    folder = tmp_path_factory.mktemp("fitted") / "project"
    shutil.copytree(trained, folder)
    draw_folder(folder / "others", ("cross",), 40)
    draw_folder(folder / "camera", ("cat",), 6)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["evaluate"] |= {"outliers": "others", "photos": "camera"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run("fit", folder)
    return folder


@pytest.fixture
def project(fitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(fitted, tmp_path / "project")
    return tmp_path / "project"


def run(step: str, folder: Path) -> str:
    result = run_module(f"training.{step}", cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def plain(value: Any) -> Any:
    """Return what can be compared with ==."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def calibration_of(folder: Path) -> dict[str, Any]:
    """Return all that was chosen, but of the int8 network what it answers: its archive differs from process to process."""
    chosen = read_calibration(folder / "build" / "calibration.pt", folder / "build" / "weights.pt")
    network = chosen.quantised()
    assert network
    photos = torch.stack([decode_photo(encoded(draw_photo("cat", seed)), 64) for seed in range(4)])
    with torch.inference_mode():
        return plain(asdict(chosen) | {"int8_network": network(photos)})


def test_fitting_opens_no_photo_that_is_measured_on(project: Path) -> None:
    chosen = calibration_of(project)
    for folder in (project / "camera", project / "build" / "cache"):
        shutil.rmtree(folder)
    (project / "build" / "calibration.pt").unlink()
    measured = [project / row.path for row in Manifest.read(project / "data" / "manifest.csv").split("test")]
    others = list((project / "others").rglob("*.jpg"))
    measured += [photo for photo in others if int(hashlib.sha256(photo.read_bytes()).hexdigest()[:8], 16) % 2]
    for photo in measured:
        photo.unlink()

    run("fit", project)

    assert calibration_of(project) == chosen
    assert len(measured) > 30


def test_measuring_reports_what_was_chosen_and_chooses_nothing(project: Path) -> None:
    path, weights = project / "build" / "calibration.pt", project / "build" / "weights.pt"
    chosen = read_calibration(path, weights)
    other = replace(chosen, fp32=replace(chosen.fp32, temperature=3.0, unsure_below=0.6, unlike_above=0.7))
    write_calibration(path, other)
    before = path.read_bytes()

    run("evaluate", project)

    figures = read_figures(project / "reports" / "metrics.json")
    assert path.read_bytes() == before
    assert (figures.temperature, figures.unsure_below, figures.unlike.threshold) == (3.0, 0.6, 0.7)
    assert figures.promise == chosen.fp32.promise
    assert figures.calibration == hashlib.sha256(before).hexdigest()
    assert figures.camera_photos
    assert (figures.camera_photos.photos, figures.camera_photos.roc_auc) == (6, None)


def test_figures_of_another_calibration_are_not_exported(project: Path) -> None:
    path, weights = project / "build" / "calibration.pt", project / "build" / "weights.pt"
    chosen = read_calibration(path, weights)
    write_calibration(path, replace(chosen, fp32=replace(chosen.fp32, temperature=3.0)))

    result = run_module("training.export", cwd=project)

    assert result.returncode == 2
    assert result.stderr == (
        "error: reports/metrics.json measured another model than build/weights.pt with build/calibration.pt; "
        "run `make evaluate`\n"
    )


@pytest.mark.parametrize("step", ["fit", "evaluate"])
def test_weights_of_other_photos_are_refused(project: Path, step: str) -> None:
    """A smaller label holds out a larger share: what was trained on would be tested on."""
    manifest = Manifest.read(project / "data" / "manifest.csv")
    Manifest(row for row in manifest.rows if row is not manifest.split("train")[0]).write(project / "data" / "manifest.csv")

    result = run_module(f"training.{step}", cwd=project)

    assert result.returncode == 2
    assert result.stderr.startswith("error: build/weights.pt was trained on other photos or splits than the manifest has")


def test_an_unreadable_photo_that_is_measured_on_is_named(project: Path) -> None:
    damaged = next((project / "camera").rglob("*.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:100])

    result = run_module("training.evaluate", cwd=project)

    assert result.returncode == 2
    assert result.stderr.startswith(f"error: cannot read {damaged.relative_to(project)} (")
    assert "Traceback" not in result.stderr


def test_the_whole_numbers_see_photos_of_all_labels() -> None:
    sorted_by_label = torch.arange(1000)

    assert spread(sorted_by_label, 10).tolist() == list(range(0, 1000, 100))
    assert len(spread(sorted_by_label, 300)) == 300
    assert torch.equal(spread(sorted_by_label, 2000), sorted_by_label)


def test_a_calibration_is_read_back_as_it_was_written(trained: Path, tmp_path: Path) -> None:
    weights = trained / "build" / "weights.pt"
    chosen = read_calibration(trained / "build" / "calibration.pt", weights)

    write_calibration(tmp_path / "again.pt", chosen)

    assert plain(asdict(read_calibration(tmp_path / "again.pt", weights))) == plain(asdict(chosen))
    assert chosen.fp32.promise.kept is False  # 28 validation photos or so


def test_a_calibration_of_an_older_version_is_refused(trained: Path, tmp_path: Path) -> None:
    weights = trained / "build" / "weights.pt"
    chosen = asdict(read_calibration(trained / "build" / "calibration.pt", weights))
    torch.save({"weights": chosen["weights"], **chosen["fp32"]}, tmp_path / "old.pt")

    with pytest.raises(UserError, match=r"old\.pt was written by another version of petclf; run `make evaluate`"):
        read_calibration(tmp_path / "old.pt", weights)


def test_three_labels_and_a_weak_model_go_through_every_step(tmp_path: Path) -> None:
    """One epoch on three labels, of which one has the fewest test photos that are accepted."""
    draw_folder(tmp_path / "drawn", ("cat", "dog", "cross"), 42)
    counts = {"train": (30, 30, 30), "val": (6, 6, 5), "test": (6, 6, 5)}
    for column, label in enumerate(("cat", "dog", "cross")):
        drawn = iter(sorted((tmp_path / "drawn" / label).iterdir()))
        for split, count in counts.items():
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for photo in islice(drawn, count[column]):
                photo.rename(tmp_path / "photos" / split / label / photo.name)
    write_params(tmp_path, epochs=1)
    assert run_module("training.manifest", "--keep-splits", cwd=tmp_path).returncode == 0

    for step in ("train", "fit", "evaluate", "export"):
        run(step, tmp_path)

    figures = read_figures(tmp_path / "reports" / "metrics.json")
    assert figures.labels == ["cat", "cross", "dog"]
    assert figures.test.photos == 17
    assert sum(map(sum, figures.test.confusion)) == 17


def test_what_is_promised_is_said_plainly() -> None:
    promise = Promise(wrong_when_sure=0.005, confidence=0.95, kept=True, sure=1835, wrong=3)

    assert in_words(promise, 0.98) == (
        "unsure below 0.9800: at most 0.50% of the sure answers are wrong, with 95% confidence "
        "(3 of 1,835 validation photos above it are answered wrong)"
    )
    assert in_words(replace(promise, kept=False, sure=40, wrong=1), 0.98) == (
        "unsure below 0.9800, but nothing is promised of the sure answers: 1 of 40 validation photos above it are answered "
        "wrong, which does not show with 95% confidence that at most 0.50% are; more validation photos or a better model would"
    )
