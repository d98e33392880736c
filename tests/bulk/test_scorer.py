"""Rows say what the server would answer, to the last digit that it shows, and what it would refuse, word for word."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bulk.errors import BulkError
from bulk.scorer import Model, Scorer
from handler.batch import Answerer
from handler.lanes import Lanes
from handler.question import Request
from handler.refusal import Refusal
from tests.archives import with_file
from tests.drawing import draw_photo, encoded
from tests.e2e.awkward import cases

CASES = cases()
PHOTOS = [encoded(draw_photo("cat" if seed % 2 else "dog", seed, (120, 90))) for seed in range(13)]
DIGIT = 1.000001e-6  # the last that an answer shows


@pytest.fixture(scope="module")
def answerer(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    return Answerer(scorer.classifier, [1], None, frozenset(), Lanes(tmp_path_factory.mktemp("lanes"), 1))


def online(answerer: Answerer, data: bytes) -> dict[str, Any]:
    [reply], _ = answerer.answer([Request("id", body=data, content_type="application/octet-stream")])
    content: dict[str, Any] = json.loads(reply.body)
    return content


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("label", "unsure", "unsure_because", "error_code", "error"))


@pytest.mark.parametrize("name", [*CASES, "nothing"])
def test_a_row_is_the_servers_answer(name: str, scorer: Scorer, answerer: Answerer) -> None:
    data = CASES[name].data if name in CASES else b""
    [row] = scorer.score([(b"photo", data)])
    answer = online(answerer, data)
    error = answer.get("error", {})
    said = (answer.get("label"), answer.get("unsure"), answer.get("unsure_because"), error.get("code"), error.get("message"))
    assert told(row) == said
    for label, probability in answer.get("probabilities", {}).items():
        assert row[f"probability_{label}"] == pytest.approx(probability, abs=DIGIT)
    assert row["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_row_does_not_depend_on_its_neighbours(scorer: Scorer) -> None:
    mixed: list[tuple[bytes, bytes | Refusal]] = [(f"{index:02d}".encode(), photo) for index, photo in enumerate(PHOTOS)]
    mixed[3:3] = [(b"broken", b"not a photo"), (b"away", Refusal("cannot_read", "it is away"))]
    together = scorer.score(mixed)
    alone = [scorer.score([one])[0] for one in mixed]
    assert [told(row) for row in together] == [told(row) for row in alone]
    assert [row["path"] for row in together] == [name.decode() for name, _ in mixed]
    for row, other in zip(together, alone, strict=True):
        assert row.get("probability_cat", 0.0) == pytest.approx(other.get("probability_cat", 0.0), abs=DIGIT)


def test_a_refused_photo_has_a_row_with_the_reason_and_nothing_else(scorer: Scorer, model: Model) -> None:
    content, _ = scorer.as_part([(b"d\xffg.jpg", Refusal("cannot_read", "it is away"))])
    [row] = pq.read_table(io.BytesIO(content)).to_pylist()
    assert row == {
        "path": "d\\xffg.jpg", "sha256": None, "label": None, "confidence": None, "probability_cat": None, "probability_dog": None,
        "unsure": None, "unsure_because": None, "unlike": None, "model": "petclf", "version": model.version, "archive": model.sha256,
        "form": scorer.classifier.form, "error_code": "cannot_read", "error": "it is away",
    }  # fmt: skip


def test_the_same_photos_give_the_same_bytes(scorer: Scorer, model: Model) -> None:
    photos = [(str(index).encode(), photo) for index, photo in enumerate(PHOTOS)]
    assert scorer.as_part(photos)[0] == Scorer(model).as_part(photos)[0]


def test_an_archive_is_known_by_its_bytes(archive: Path) -> None:
    model = Model.of(archive)
    assert model.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (model.name, model.other_reading()) == ("petclf", [])


def test_an_archive_whose_handler_reads_otherwise_is_noticed(archive: Path, tmp_path: Path) -> None:
    other = with_file(archive, tmp_path / "other.mar", "handler/limits.py", lambda data: data + b"\n")
    assert Model.of(other).other_reading() == ["limits.py"]


@pytest.mark.parametrize("content", [None, b"", b"no zip"])
def test_what_is_no_archive_is_refused_with_what_to_do(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "petclf.mar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BulkError, match=rf"{re.escape(str(path))}.*`make archive`"):
        Model.of(path)


def test_a_model_that_answers_a_known_photo_wrong_does_not_begin(archive: Path, tmp_path: Path) -> None:
    broken = with_file(archive, tmp_path / "broken.mar", "petclf.pt", lambda _: b"no model")
    with pytest.raises(BulkError, match=r"petclf\.pt is no TorchScript model"):
        Scorer(Model.of(broken))
