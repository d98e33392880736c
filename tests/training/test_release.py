"""What leaves the training: figures, pictures, and a petclf.pt that keeps its contract."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from handler.golden import golden_photos
from handler.photo_input import decode_photo
from tests.conftest import draw_folder
from tests.drawing import draw_photo, encoded
from tests.training.conftest import run_module
from training import evaluate as evaluation
from training import export, fit
from training.corruptions import CORRUPTIONS, corrupted
from training.fitted import read_calibration
from training.manifest import Manifest
from training.network import load_weights
from training.quantise import quantise
from training.released import Released, summarise
from training.seen import look, read_all


@pytest.fixture
def model(trained: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(str(trained / "build" / "petclf.pt"))


def metadata(path: Path) -> dict:
    extra = {"metadata.json": ""}
    torch.jit.load(str(path), _extra_files=extra)
    return json.loads(extra["metadata.json"])


def test_the_report_has_figures_and_pictures(trained: Path) -> None:
    figures = json.loads((trained / "reports" / "metrics.json").read_text())

    assert figures["test"]["accuracy"] >= 0.9
    assert set(figures["baselines"]) == {"mean colour", "20,000 parameters"}
    assert list(figures["scorecard"]["accuracy"]) == list(CORRUPTIONS)
    pictures = {"curves", "confusion", "roc", "precision_recall", "reliability", "coverage", "unlike", "slices", "scorecard"}
    assert {path.stem for path in (trained / "reports").glob("*.png")} == pictures
    report = (trained / "reports" / "report.html").read_text(encoding="utf-8")
    assert f'<td>balanced accuracy</td><td class="number">{figures["test"]["balanced_accuracy"]:.2%}</td>' in report


def test_the_model_carries_its_facts(trained: Path) -> None:
    facts = metadata(trained / "build" / "petclf.pt")

    manifest = Manifest.read(trained / "data" / "manifest.csv")
    assert (facts["name"], facts["version"], facts["labels"], facts["image_size"]) == ("petclf", "2.0.0", ["cat", "dog"], 64)
    assert facts["provenance"]["data_digest"] == manifest.digest
    assert set(facts["thresholds"]) == {"unsure_below", "unlike_above"}
    statistics = {"brightness", "contrast", "sharpness", "colourfulness", "width", "height", "aspect", "confidence", "unlike"}
    assert set(facts["reference"]) == statistics | {"quantile_levels", "label_share", "photos"}
    assert facts["reference"]["photos"] == len(manifest.split("val"))


def test_golden_photos_are_answered_as_recorded(trained: Path, model: torch.jit.ScriptModule) -> None:
    facts = metadata(trained / "build" / "petclf.pt")

    probabilities, unlike = model(golden_photos(facts["image_size"]))

    assert torch.allclose(probabilities, torch.tensor([one["probabilities"] for one in facts["golden"]]), atol=1e-5)
    assert torch.allclose(unlike, torch.tensor([one["unlike"] for one in facts["golden"]]), atol=1e-5)


def test_the_map_of_evidence_averages_to_the_logits_exactly(trained: Path, model: torch.jit.ScriptModule) -> None:
    network, _ = load_weights(trained / "build" / "weights.pt")
    photos = golden_photos(64)

    probabilities, maps = model.explain(photos)

    with torch.inference_mode():
        assert torch.allclose(maps.mean((2, 3)), network(photos), atol=1e-4)
    assert torch.allclose(probabilities, model(photos)[0], atol=1e-6)
    assert maps.shape[:2] == (3, 2)


def test_scripted_and_trained_agree_on_photos_read_as_the_server_reads(trained: Path, model: torch.jit.ScriptModule) -> None:
    network, _ = load_weights(trained / "build" / "weights.pt")
    fitted = read_calibration(trained / "build" / "calibration.pt", trained / "build" / "weights.pt").fp32
    eager = Released(network, fitted.temperature, fitted.unlike_score()).eval()
    photos = torch.stack([decode_photo(encoded(draw_photo("cat", seed, (300, 200))), 64) for seed in range(6)])

    with torch.inference_mode():
        for one, other in zip(eager(photos), model(photos), strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def test_any_size_and_number_of_photos_is_answered(model: torch.jit.ScriptModule) -> None:
    for count, size in ((1, 64), (3, 128), (2, 224)):
        probabilities, unlike = model(torch.zeros(count, 3, size, size, dtype=torch.uint8))
        assert (probabilities.shape, unlike.shape) == ((count, 2), (count,))
        assert torch.allclose(probabilities.sum(1), torch.ones(count))


def test_evaluation_sees_what_the_handler_sees(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    network, saved = load_weights(Path("build/weights.pt"))
    rows = Manifest.read(Path("data/manifest.csv")).split("test")[:4]
    by_hand = torch.stack([decode_photo(Path(row.path).read_bytes(), saved["image_size"]) for row in rows])

    pixels = read_all([row.path for row in rows], saved["image_size"])

    assert torch.equal(pixels, by_hand)
    assert torch.equal(look(network, pixels).summaries, summarise(network.stages(by_hand)).detach())


def test_the_network_in_whole_numbers_says_nearly_the_same(trained: Path) -> None:
    network, _ = load_weights(trained / "build" / "weights.pt")
    photos = torch.stack(
        [decode_photo(encoded(draw_photo(kind, seed, (90, 90))), 64) for kind in ("cat", "dog") for seed in range(20)]
    )

    quantised = quantise(network, photos)

    with torch.inference_mode():
        trained_maps, rounded_maps = network.stages(photos), quantised.stages(photos)
        assert [maps.shape for maps in rounded_maps] == [maps.shape for maps in trained_maps]
        for exact, rounded in zip(trained_maps, rounded_maps, strict=True):
            assert float((rounded - exact).abs().mean()) < 0.1 * float(exact.abs().mean())
        alike = network(photos).argmax(1) == quantised(photos).argmax(1)
    assert alike.float().mean() >= 0.9
    operations = {node.kind() for node in torch.jit.freeze(quantised.body[0]).inlined_graph.nodes()}
    in_int8 = {name for name in operations if name.startswith("quantized::")}
    assert in_int8 == {"quantized::conv2d", "quantized::conv2d_relu", "quantized::add"}


def test_the_int8_form_has_facts_of_its_own(trained: Path) -> None:
    path = trained / "build" / "petclf-int8.pt"
    facts = metadata(trained / "build" / "petclf.pt")["int8"]
    assert set(facts) == {"sha256", "thresholds", "reference", "golden", "metrics"}
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    int8 = torch.jit.load(str(path))
    photos = golden_photos(64)
    probabilities, _ = int8(photos)
    _, maps = int8.explain(photos)

    assert torch.allclose(probabilities, torch.tensor([one["probabilities"] for one in facts["golden"]]), atol=1e-5)
    assert maps.shape[:2] == (3, 2)
    assert json.loads((trained / "reports" / "metrics.json").read_text())["int8"]["same_answer"] >= 0.9


@pytest.mark.usefixtures("_readers_of_its_own")
@pytest.mark.parametrize("reason", ["loses", "cannot be had"])
def test_a_network_that_int8_does_not_suit_is_released_without(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    if reason == "loses":
        found = iter([1.0, 0.89])  # in fp32, in int8; the limit is 0.1
        monkeypatch.setattr(fit, "accuracy", lambda _: next(found))
    else:
        monkeypatch.setattr(fit, "quantise", lambda *_: torch.jit.script(None))

    fit.main([])
    evaluation.main([])
    export.main([])

    assert reason in capsys.readouterr().out
    assert "int8" not in metadata(folder / "build" / "petclf.pt")
    assert (folder / "build" / "petclf-int8.pt").read_bytes() == b""


@pytest.mark.parametrize("remember", [0.3, 0.0])
def test_other_things_measure_the_unlike_score_and_teach_it_where_imagenet_is_forgotten(
    trained: Path, tmp_path: Path, remember: float
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    saved = torch.load(folder / "build" / "weights.pt", weights_only=True)
    torch.save({**saved, "config": {**saved["config"], "remember": remember}}, folder / "build" / "weights.pt")
    draw_folder(folder / "others", ("cross",), 40)
    draw_folder(folder / "camera", ("cat", "dog"), 6)
    text = (
        (folder / "params.yaml")
        .read_text()
        .replace("outliers: null", "outliers: others")
        .replace("photos: null", "photos: camera")
    )
    (folder / "params.yaml").write_text(text)

    for name in ("fit", "evaluate", "export"):
        result = run_module(f"training.{name}", cwd=folder)
        assert result.returncode == 0, result.stderr

    figures = json.loads((folder / "reports" / "metrics.json").read_text())
    assert figures["unlike"]["fitted_on_other_things"] is (remember == 0)
    assert figures["unlike"]["others"] > 10
    if not remember:  # in drawings, ImageNet's head sees nothing that it could tell apart
        assert figures["unlike"]["others_roc_auc"] > 0.6
    assert figures["camera_photos"]["photos"] == 12


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_photo_is_still_a_photo_and_another_one(name: str) -> None:
    data = encoded(draw_photo("cat", 1, (180, 180)), quality=95)

    changed = corrupted(data, name)

    assert Image.open(io.BytesIO(changed)).format == "JPEG"
    assert not torch.equal(decode_photo(changed, 64), decode_photo(data, 64))


def test_what_is_missing_is_told(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    (folder / "build" / "weights.pt").write_bytes(b"garbage")
    damaged = run_module("training.evaluate", cwd=folder)
    (folder / "build" / "weights.pt").unlink()
    absent = run_module("training.export", cwd=folder)

    assert (damaged.returncode, absent.returncode) == (2, 2)
    assert damaged.stderr.startswith("error: build/weights.pt is damaged")
    assert absent.stderr == "error: no file at build/weights.pt; train one with `make train`\n"


def test_calibration_of_other_weights_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    saved = torch.load(folder / "build" / "weights.pt", weights_only=True)
    torch.save({**saved, "seed": 99}, folder / "build" / "weights.pt")

    result = run_module("training.export", cwd=folder)

    assert result.returncode == 2
    assert "belongs to other weights than build/weights.pt; run `make evaluate`" in result.stderr


def test_the_model_answers_in_an_interpreter_that_has_only_torch(trained: Path) -> None:
    code = "import sys, torch; print(torch.jit.load(sys.argv[1])(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[0].shape)"
    path = str(trained / "build" / "petclf.pt")
    result = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code, path], capture_output=True, text=True, check=True)

    assert result.stdout == "torch.Size([1, 2])\n"
