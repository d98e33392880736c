"""What every peer serves: petclf's own reading of photos and its own model file, so that only the serving differs."""

import os
from pathlib import Path
from typing import Any

import torch

from handler.classifier import Classifier, Judgement, portions
from handler.photo_input import decode_photo

BATCH = 8
MODEL = Path(os.environ.get("PETCLF_MODEL", Path(__file__).parents[2] / "pretrained" / "petclf.pt"))


class Core:
    """One process's model."""

    def __init__(self, threads: int = 1) -> None:
        self.classifier = Classifier(MODEL, "cpu", threads)
        self.sizes = self.classifier.sizes(BATCH)
        self.classifier.warm_up(self.sizes)

    def answer(self, photo: bytes) -> dict[str, Any]:
        return self.answer_all([photo])[0]

    def answer_all(self, photos: list[bytes]) -> list[dict[str, Any]]:
        pixels = [decode_photo(photo, self.classifier.size) for photo in photos]
        judgements = [self.classifier.predict(torch.stack(list(some)))[0] for some in portions(pixels, self.sizes)]
        return [as_content(judgement) for some in judgements for judgement in some]


def as_content(judgement: Judgement) -> dict[str, Any]:
    return {"label": judgement.label, "confidence": judgement.confidence, "probabilities": judgement.probabilities}
