"""petclf.pt, ready to answer: loaded, frozen, warmed up, and proven on photos whose answers are known."""

import hashlib
import io
import json
import logging
import os
import time
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from handler.golden import golden_photos

logger = logging.getLogger("petclf")

TOLERANCE = {"fp32": 1e-4, "gpu": 5e-3, "int8": 2e-2}  # TF32 convolutions round earlier; one step of int8 is a large one


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
        try:
            self.metadata: dict[str, Any] = json.loads(read_extra(path, "metadata.json") or "{}")
            int8 = self.load_int8(path.with_name("petclf-int8.pt"))
            self.model = int8 or load(path, self.device)
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise BrokenModelError(f"{path.name} is no TorchScript model: {str(error).splitlines()[0]}") from None
        self.form = "int8" if int8 else "fp32" if self.device.type == "cpu" else "gpu"
        for key in ("name", "version", "labels", "image_size", "thresholds", "golden"):
            if key not in self.metadata:
                raise BrokenModelError(f"{path.name} has no {key} in its metadata.json; export it with `make export`")
        self.labels: list[str] = self.metadata["labels"]
        self.size: int = self.metadata["image_size"]

    def load_int8(self, path: Path) -> torch.jit.ScriptModule | None:
        """Return the form in whole numbers, twice as fast, if it is wanted and this machine gives its recorded answers."""
        unwanted = self.device.type != "cpu" or os.environ.get("PETCLF_INT8") == "off"
        if unwanted or "int8" not in self.metadata or not path.exists():
            return None
        facts, content = self.metadata["int8"], path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            logger.warning("%s belongs to another model, so fp32 answers", path.name)
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said once a process: that quantised tensors will go in some later torch
                torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
            model = load(io.BytesIO(content), self.device)
            with torch.inference_mode():  # torch keeps the kernels made for the first size it sees: for a lone client's photo
                model(golden_photos(self.metadata["image_size"])[:1])
            error = worst_error(model, facts["golden"], self.metadata["image_size"], self.device)
        except (RuntimeError, ValueError) as reason:  # e.g. no such kernels on this CPU
            logger.warning("int8 cannot run here, so fp32 answers: %s", str(reason).splitlines()[0])
            return None
        if not error <= TOLERANCE["int8"]:  # not a number is no answer either
            logger.warning("int8 rounds otherwise here, by %.2g, so fp32 answers", error)
            return None
        self.metadata |= facts
        return model

    def at_once(self, batch_size: int) -> int:
        """Return how many photos to give the model at once: in int8 each takes as long by itself, in less memory."""
        return 1 if self.form == "int8" else batch_size

    def warm_up(self, batch_size: int) -> None:
        """Answer batches of every size: TorchScript optimises each on its second time, which takes long."""
        for count in range(batch_size, 0, -1):
            for _ in range(2):
                self.predict(torch.zeros(count, 3, self.size, self.size, dtype=torch.uint8))

    def check_golden(self) -> None:
        """Refuse a model that does not give the answers recorded when it was exported."""
        worst = worst_error(self.model, self.metadata["golden"], self.size, self.device)
        if not worst <= TOLERANCE[self.form]:
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


def read_extra(path: Path, name: str) -> bytes:
    """Return what lies in the file beside the module; nothing if it is not there. No module is loaded for it."""
    with zipfile.ZipFile(path) as packed:
        return next((packed.read(entry) for entry in packed.namelist() if entry.endswith(f"/extra/{name}")), b"")


def load(source: Path | io.BytesIO, device: torch.device) -> torch.jit.ScriptModule:
    """Return a TorchScript module, made as fast as it gets on this device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what TorchServe loads
        file = source if isinstance(source, io.BytesIO) else str(source)
        scripted = torch.jit.load(file, map_location=device).eval()
        frozen = torch.jit.freeze(scripted, preserved_attrs=["explain"])
        on_cpu = device.type == "cpu"
        return torch.jit.optimize_for_inference(frozen, other_methods=["explain"]) if on_cpu else frozen


def worst_error(model: torch.jit.ScriptModule, golden: list[dict[str, Any]], size: int, device: torch.device) -> float:
    """Return how far the model is from the recorded answers."""
    with torch.inference_mode():
        probabilities, _ = model(golden_photos(size).to(device))
    expected = torch.tensor([answer["probabilities"] for answer in golden])
    return float((probabilities.cpu() - expected).abs().max())
