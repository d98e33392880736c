"""petclf.pt, ready to answer: loaded, frozen, warmed up, and proven on photos whose answers are known."""

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from handler.golden import golden_photos

TOLERANCE = 1e-4
GPU_TOLERANCE = 5e-3  # TF32 convolutions round earlier


class BrokenModelError(RuntimeError):
    """This model must not serve."""


@dataclass(frozen=True)
class Judgement:
    """What the model says of one photo."""

    label: str
    confidence: float
    probabilities: dict[str, float]
    unlike: float
    unsure_because: str | None


class Classifier:
    """The model and the facts that travel with it."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        extra = {"metadata.json": ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what TorchServe loads
                scripted = torch.jit.load(str(path), map_location=self.device, _extra_files=extra).eval()
                frozen = torch.jit.freeze(scripted, preserved_attrs=["explain"])
                on_cpu = self.device.type == "cpu"
                self.model = torch.jit.optimize_for_inference(frozen, other_methods=["explain"]) if on_cpu else frozen
        except (RuntimeError, ValueError) as error:
            raise BrokenModelError(f"{path.name} is no TorchScript model: {str(error).splitlines()[0]}") from None
        self.metadata: dict[str, Any] = json.loads(extra["metadata.json"] or "{}")
        for key in ("name", "version", "labels", "image_size", "thresholds", "golden"):
            if key not in self.metadata:
                raise BrokenModelError(f"{path.name} has no {key} in its metadata.json; export it with `make export`")
        self.labels: list[str] = self.metadata["labels"]
        self.size: int = self.metadata["image_size"]

    def warm_up(self, batch_size: int) -> None:
        """Answer batches of every size: TorchScript optimises each on its second time, which takes long."""
        for count in range(batch_size, 0, -1):
            for _ in range(2):
                self.predict(torch.zeros(count, 3, self.size, self.size, dtype=torch.uint8))

    def check_golden(self) -> None:
        """Refuse a model that does not give the answers recorded when it was exported."""
        with torch.inference_mode():
            probabilities, _ = self.model(golden_photos(self.size).to(self.device))
        expected = torch.tensor([golden["probabilities"] for golden in self.metadata["golden"]])
        worst = float((probabilities.cpu() - expected).abs().max())
        if not worst <= (TOLERANCE if self.device.type == "cpu" else GPU_TOLERANCE):
            raise BrokenModelError(f"a known photo is answered wrong, by {worst:.2g}; this model must not serve")

    def predict(self, photos: torch.Tensor) -> tuple[list[Judgement], float]:
        """Return a judgement a photo, and the seconds that the model took for all of them."""
        started = time.perf_counter()
        with torch.inference_mode():
            probabilities, unlike = self.model(photos.to(self.device))
        rows, scores = probabilities.tolist(), unlike.tolist()
        seconds = time.perf_counter() - started
        return [self.judge(row, score) for row, score in zip(rows, scores, strict=True)], seconds

    def judge(self, row: list[float], unlike: float) -> Judgement:
        """Put one photo's numbers into words."""
        confidence = max(row)
        thresholds = self.metadata["thresholds"]
        because = None
        if unlike > thresholds["unlike_above"]:
            because = "unlike_training_photos"
        elif confidence < thresholds["unsure_below"]:
            because = "close_call"
        return Judgement(
            self.labels[row.index(confidence)], confidence, dict(zip(self.labels, row, strict=True)), unlike, because
        )

    def evidence(self, photos: torch.Tensor, judgements: list[Judgement]) -> list[torch.Tensor]:
        """Return for each photo where it shows its label: [h, w], whose mean is the label's logit, exactly."""
        with torch.inference_mode():
            _, maps = self.model.explain(photos.to(self.device))
        return [one[self.labels.index(judgement.label)].cpu() for one, judgement in zip(maps, judgements, strict=True)]
