"""What score_many writes is what a running server answers."""

import pytest

from bulk.scorer import Model, Scorer
from tests.drawing import draw_photo, encoded
from tests.e2e.awkward import cases
from tests.e2e.conftest import Serving

pytestmark = pytest.mark.e2e


def test_rows_are_the_answers_of_a_running_server(server: Serving) -> None:
    photos = {name: one.data for name, one in cases().items()}
    photos |= {f"drawn {seed}": encoded(draw_photo("cat" if seed % 2 else "dog", seed, (300, 200))) for seed in range(20)}
    model = Model.of(server.store / "petclf.mar")
    rows = Scorer(model).score([(name.encode(), data) for name, data in photos.items()])
    assert model.sha256 == server.archive_digest
    for row, data in zip(rows, photos.values(), strict=True):
        reply = server.predict(data)
        answer = reply.json()
        error = answer.get("error", {})
        said = (answer.get("label"), answer.get("unsure"), answer.get("unsure_because"), error.get("code"), error.get("message"))
        assert tuple(row.get(name) for name in ("label", "unsure", "unsure_because", "error_code", "error")) == said, row["path"]
        for label, probability in answer.get("probabilities", {}).items():
            assert row[f"probability_{label}"] == pytest.approx(probability, abs=1.000001e-6), row["path"]
        if not error:
            assert (row["version"], row["archive"]) == (reply.headers["x-petclf-version"], reply.headers["x-petclf-archive"])
