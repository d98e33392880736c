"""The form of the model that answers: int8 where it gives its recorded answers, else fp32."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from handler.classifier import BrokenModelError, Classifier, choose_int8_kernels, portions
from handler.golden import golden_photos
from handler.photo_input import decode_photo
from tests.drawing import draw_photo, encoded
from tests.handler.conftest import ROOT

RELEASED = ROOT / "pretrained" / "petclf.pt"


def changed(folder: Path, change: Callable[[dict[str, Any]], object], int8: bytes | None = None) -> Path:
    """Return the released model with other facts in it, or with another int8 form."""
    path = folder / "petclf.pt"
    with zipfile.ZipFile(RELEASED) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("extra/metadata.json"):
                facts = json.loads(data)
                change(facts)
                data = json.dumps(facts).encode()
            new.writestr(entry, data)
    path.with_name("petclf-int8.pt").write_bytes(RELEASED.with_name("petclf-int8.pt").read_bytes() if int8 is None else int8)
    return path


def answer_wrong(form: dict[str, Any]) -> None:
    form["golden"][0]["probabilities"] = [0.5, 0.5]


def test_int8_answers_with_its_own_thresholds(classifier: Classifier) -> None:
    if classifier.form == "fp32":
        pytest.skip("this CPU rounds int8 otherwise than the one that recorded the answers")
    facts = classifier.metadata["int8"]
    assert {name: classifier.metadata[name] for name in facts} == facts
    assert (classifier.sizes(8), classifier.sizes(3)) == ([4, 2, 1], [2, 1])


def test_photos_are_answered_alike_whether_they_come_alone_or_together(classifier: Classifier) -> None:
    photos = torch.stack([decode_photo(encoded(draw_photo("dog", seed, (200, 200))), classifier.size) for seed in range(4)])

    answers = [
        [judgement for some in portions(photos, [size]) for judgement in classifier.predict(some)[0]]
        for size in classifier.sizes(4)
    ]

    alone = answers[-1]
    for together in answers:
        assert [one.label for one in together] == [one.label for one in alone]
        assert [one.confidence for one in together] == pytest.approx([one.confidence for one in alone], abs=1e-5)
        assert [one.unlike for one in together] == pytest.approx([one.unlike for one in alone], abs=1e-5)


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [(7, [4, 2, 1], [4, 2, 1]), (8, [4, 2, 1], [4, 4]), (3, [1], [1, 1, 1]), (11, [8, 7, 3, 2, 1], [8, 3]), (0, [4, 2, 1], [])],
)
def test_photos_are_taken_in_as_few_portions_as_the_sizes_allow(count: int, sizes: list[int], expected: list[int]) -> None:
    some = list(portions(range(count), sizes))

    assert [len(portion) for portion in some] == expected
    assert [photo for portion in some for photo in portion] == list(range(count))


def test_int8_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETCLF_INT8", "off")
    plain = Classifier(RELEASED, "cpu", threads=1)

    plain.check_golden()

    assert (plain.form, plain.sizes(3)) == ("fp32", [3, 2, 1])
    assert plain.metadata["thresholds"] != plain.metadata["int8"]["thresholds"]


def test_both_forms_say_the_same_of_the_same_photos(monkeypatch: pytest.MonkeyPatch, classifier: Classifier) -> None:
    monkeypatch.setenv("PETCLF_INT8", "off")
    plain = Classifier(RELEASED, "cpu", threads=1)
    photos = torch.stack([decode_photo(encoded(draw_photo("cat", seed, (200, 200))), plain.size) for seed in range(8)])

    one, other = plain.predict(photos)[0], classifier.predict(photos)[0]

    assert [judgement.confidence for judgement in one] == pytest.approx([judgement.confidence for judgement in other], abs=0.15)


def test_where_int8_answers_otherwise_than_recorded_fp32_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    careful = Classifier(changed(tmp_path, lambda facts: answer_wrong(facts["int8"])), "cpu", threads=1)

    careful.check_golden()

    assert careful.form == "fp32"
    assert careful.metadata["thresholds"] != careful.metadata["int8"]["thresholds"]
    assert "int8 rounds otherwise here" in caplog.text


def test_where_int8_cannot_run_fp32_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["int8"]["sha256"] = hashlib.sha256(b"no module").hexdigest()

    careful = Classifier(changed(tmp_path, change, b"no module"), "cpu", threads=1)

    careful.check_golden()

    assert careful.form == "fp32"
    assert "int8 cannot run here" in caplog.text


def test_an_int8_form_of_another_model_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Classifier(changed(tmp_path, dict.copy, b"of another model"), "cpu", threads=1).form == "fp32"
    assert "petclf-int8.pt belongs to another model" in caplog.text


def test_a_model_whose_forms_are_both_wrong_is_refused(tmp_path: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        answer_wrong(facts)
        answer_wrong(facts["int8"])

    with pytest.raises(BrokenModelError, match="a known photo is answered wrong"):
        Classifier(changed(tmp_path, change), "cpu", threads=1).check_golden()


def test_the_evidence_of_either_form_means_its_own_logit(classifier: Classifier) -> None:
    photos = golden_photos(classifier.size)
    with torch.inference_mode():
        probabilities, _ = classifier.model(photos)
        explained, maps = classifier.model.explain(photos)

    assert torch.allclose(probabilities, explained, atol=1e-5)
    assert maps.mean((2, 3)).argmax(1).tolist() == probabilities.argmax(1).tolist()


@pytest.mark.parametrize(("capable", "expected"), [(True, "onednn"), (False, "x86")])
def test_int8_takes_onednns_kernels_where_the_cpu_has_vnni(monkeypatch: pytest.MonkeyPatch, capable: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_vnni": capable})
    before = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = "x86"
        choose_int8_kernels()
        assert torch.backends.quantized.engine == expected
    finally:
        torch.backends.quantized.engine = before
