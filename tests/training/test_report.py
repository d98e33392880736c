"""The report shows the figures as they are, alone and against the model before."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training import measures
from training.compare import Known, differences, known, live_model, newcombe, read_known
from training.errors import UserError
from training.figures import Figures, Promise, Scorecard, Share, Sure, Unlike
from training.plots import LIGHT, Evidence, as_png, pictures, start_of
from training.report import how_to_open, write_report

RELEASED = Path(__file__).parents[2] / "pretrained"
ALWAYS = {"curves", "confusion", "roc", "precision_recall", "reliability", "coverage", "unlike", "slices"}


def share(right: int, count: int) -> Share:
    return Share(accuracy=right / count, interval=measures.interval(right, count), photos=count)


def measured(labels: list[str], count: int, wrong: int) -> tuple[Figures, Evidence]:
    """Return figures and evidence of `count` test photos, the first `wrong` of which are answered wrong."""
    truth = np.arange(count) % len(labels)
    answers = np.where(np.arange(count) < wrong, (truth + 1) % len(labels), truth)
    confidence = np.linspace(1 / len(labels) + 0.1, 0.999, count)
    probabilities = np.tile(((1 - confidence) / (len(labels) - 1))[:, None], (1, len(labels)))
    probabilities[np.arange(count), answers] = confidence
    everything = measures.everything(truth, probabilities, labels)
    figures = Figures(
        val=everything, test=everything, temperature=1.1, unsure_below=0.8, labels=labels, image_size=32, parameters=1000,
        unlike=Unlike(threshold=0.9, fitted_on_other_things=False, pets_refused=0.1), data_digest="d1", training_minutes=1.5,
        photos={"train": 80, "val": count, "test": count}, calibration_error_before=0.2, slices={"dark": share(9, 10)},
        coverage=measures.coverage(truth, probabilities),
    )  # fmt: skip
    names = ("epoch", "train_loss", "train_loss_plain", "val_loss", "seconds")
    evidence = Evidence(
        history=[{**dict.fromkeys(names, number), "val_accuracy": 1 - 0.1 / number} for number in (1.0, 2.0, 3.0)],
        truth=truth, probabilities=probabilities, photos=torch.zeros(count, 3, 32, 32, dtype=torch.uint8),
        unlike_pets=np.linspace(0, 1, count),
    )  # fmt: skip
    return figures, evidence


def whole() -> tuple[Figures, Evidence]:
    """Return figures that have everything."""
    figures, evidence = measured(["cat", "dog"], 60, wrong=3)
    return replace(
        figures,
        camera_photos=figures.test,
        scorecard=Scorecard(photos=60, accuracy={"grey": 0.9, "blurred": 0.8}, mean=0.85),
        promise=Promise(wrong_when_sure=0.005, confidence=0.95, kept=True, sure=900, wrong=1),
        sure=Sure(**vars(share(49, 50)), coverage=50 / 60),
        unlike=replace(figures.unlike, others_refused=0.9, others=20, others_roc_auc=0.97),
    ), replace(evidence, unlike_others=np.linspace(0.5, 1, 20))


def test_the_report_is_one_file_that_needs_no_network(tmp_path: Path) -> None:
    figures, evidence = whole()

    path = write_report(figures, evidence, tmp_path, known(figures, "petclf 1"))

    text = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
    assert {source.split(",")[0] for source in sources} == {"data:image/png;base64", "data:image/jpeg;base64"}
    assert "http" not in text
    assert len(text) < 3_000_000
    assert {file.stem for file in tmp_path.glob("*.png")} == ALWAYS | {"scorecard"}
    assert text.count("(prefers-color-scheme: dark)") == len(ALWAYS | {"scorecard"}) + 1  # each picture, and the page


@pytest.mark.parametrize(
    ("wrong", "sentence", "tiles"),
    [
        (0, "None: all 60 test photos are answered right.", 0),
        (3, "All 3 mistakes among 60 test photos, the most confident first.", 3),
        (30, "24 of 30 mistakes among 60 test photos, the most confident first.", 24),
    ],
)
def test_mistakes_are_shown_and_counted(tmp_path: Path, wrong: int, sentence: str, tiles: int) -> None:
    text = write_report(*measured(["cat", "dog"], 60, wrong), tmp_path).read_text(encoding="utf-8")

    assert sentence in text
    assert text.count('class="tile"') == tiles


@pytest.mark.parametrize(("labels", "wrong"), [(["cat", "dog"], 0), (["a", "b", "c"], 45), (list("abcdefghij"), 10)])
def test_every_picture_can_be_drawn_of_good_weak_and_many_labelled_models(labels: list[str], wrong: int) -> None:
    drawn = {name: as_png(draw, LIGHT) for name, draw in pictures(*measured(labels, 60, wrong)).items()}

    assert {name for name, content in drawn.items() if content.startswith(b"\x89PNG") and len(content) > 3000} == ALWAYS


def test_labels_are_text_and_no_markup(tmp_path: Path) -> None:
    text = write_report(*measured(["<b>cat", "dog & co"], 60, 3), tmp_path).read_text(encoding="utf-8")

    assert "<b>cat" not in text
    assert "&lt;b&gt;cat, answered dog &amp; co" in text


@pytest.mark.parametrize(("accuracy", "start"), [(0.998, 0.99), (0.99, 0.95), (0.978, 0.9), (0.8, 0.0), (0.3, 0.0)])
def test_a_zoomed_axis_begins_where_the_misses_can_be_seen(accuracy: float, start: float) -> None:
    assert start_of(accuracy) == start


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """His example: 56 of 70 against 48 of 80 (Statistics in Medicine 17, 1998, table II, method 10)."""
    assert newcombe(share(48, 80), share(56, 70)) == [pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4)]


def test_a_difference_is_told_only_when_it_is_larger_than_its_noise() -> None:
    figures, _ = whole()
    now = known(figures, "now")
    test = replace(figures.test, **vars(share(30, 60)), calibration_error=0.5)
    unlike = replace(figures.unlike, pets_refused=1.0, others_refused=0.85)

    found = {row.name: row.verdict for row in differences(replace(now, name="before", test=test, unlike=unlike), now)}

    assert found == {
        "test accuracy": "better", "camera photos, accuracy": "within noise", "sure answers, accuracy": "within noise",
        "sure answers, share of all": "within noise", "other things refused as unlike": "within noise",
        "test photos refused as unlike": "better", "calibration error": "noise not known", "log loss": "noise not known",
        "area under ROC": "noise not known", "corruptions, mean accuracy": "within noise",
        "corruptions, worst accuracy": "within noise",
    }  # fmt: skip


def test_the_report_shows_what_changed_against_the_model_before(tmp_path: Path) -> None:
    figures, evidence = measured(["cat", "dog"], 60, wrong=3)
    worse = replace(figures.test, **vars(share(30, 60)))
    before = replace(known(figures, "petclf 1.2.3"), test=worse, data_digest="another")

    text = write_report(figures, evidence, tmp_path, before).read_text(encoding="utf-8")

    assert "<h2>Against petclf 1.2.3</h2>" in text
    row = re.search(r'<tr class="better"><td>test accuracy</td>(.*?)</tr>', text)
    assert row
    assert re.sub(r"<[^>]*>", "|", row[1].replace("</td><td", "</td> <td")) == (
        "|50.00%| |95.00%| |+45.00 points| |+29.96 to +57.70| |better|"
    )
    assert "measured on different photos" in text


def test_a_released_model_is_known_by_its_figures_file_and_by_itself() -> None:
    whole, carried = read_known(RELEASED / "metrics.json"), read_known(RELEASED / "petclf.pt")

    assert carried == replace(whole, scorecard=None, sure=None, coverage=None)
    assert carried.name.startswith("petclf ")


def test_the_released_model_is_compared_with_only_where_the_labels_are_its_own(tmp_path: Path) -> None:
    found = live_model(["cat", "dog"], RELEASED / "metrics.json")

    assert isinstance(found, Known)
    assert live_model(["cat", "rabbit"], RELEASED / "metrics.json") is None
    assert live_model(["cat", "dog"], tmp_path / "metrics.json") is None


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "petclf.pt").write_bytes(b"nothing")

    with pytest.raises(UserError, match=r"cannot compare with .*petclf\.pt"):
        read_known(tmp_path / "petclf.pt")


def test_the_end_of_an_evaluation_says_how_to_open_the_report(tmp_path: Path) -> None:
    said = how_to_open(tmp_path)

    assert f"open {tmp_path}/report.html in a browser (file://{tmp_path}/report.html)" in said
