"""What every peer serves: petclf's own reading of photos and its own model file, so that only the serving differs."""

import os
from pathlib import Path
from typing import Any

import torch

from handler.classifier import Classifier, Judgement
from handler.photo_input import decode_photo

BATCH = 8
MODEL = Path(os.environ.get("PETCLF_MODEL", Path(__file__).parents[2] / "pretrained" / "petclf.pt"))


class Core:
    """One process's model."""

    def __init__(self, threads: int = 1) -> None:
        self.classifier = Classifier(MODEL, "cpu", threads)
        self.classifier.warm_up(BATCH)

    def answer(self, photo: bytes) -> dict[str, Any]:
        return self.answer_all([photo])[0]

    def answer_all(self, photos: list[bytes]) -> list[dict[str, Any]]:
        pixels = torch.stack([decode_photo(photo, self.classifier.size) for photo in photos])
        return [as_content(judgement) for judgement in self.classifier.predict(pixels)[0]]


def as_content(judgement: Judgement) -> dict[str, Any]:
    return {"label": judgement.label, "confidence": judgement.confidence, "probabilities": judgement.probabilities}
