"""The released model, in process."""

from pathlib import Path

import pytest

from handler.batch import Answerer
from handler.classifier import Classifier
from handler.lanes import Lanes
from handler.page import load_page
from web.build import page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return Classifier(ROOT / "pretrained" / "petclf.pt", "cpu", threads=1)


@pytest.fixture(scope="session")
def answerer(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("answerer")
    (folder / "page.html").write_bytes(page(classifier.metadata))
    return Answerer(classifier, classifier.sizes(8), load_page(folder / "page.html", "petclf"), frozenset(), Lanes(folder, 1))
