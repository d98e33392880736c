"""petclf.pt, ready to answer: loaded, frozen, warmed up, and proven on photos whose answers are known."""

import hashlib
import io
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from handler.golden import COUNT, golden_photos
from handler.model_file import TOLERANCE, ModelFileError, read_model_file

logger = logging.getLogger("petclf")
Photo = TypeVar("Photo")

CLOSE = 0.3  # between the two likeliest labels: 0.65 against 0.35
INT8_SIZES = (4, 2, 1)  # photos at once; torch keeps the int8 kernels made for the first size it sees, so each has its own copy


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
            self.metadata: dict[str, Any] = dict(read_model_file(path).metadata)
            self.copies = self.load_int8(path.with_name("petclf-int8.pt"))
            self.model = self.copies[1] if self.copies else load(path, self.device)
        except ModelFileError as error:
            raise BrokenModelError(f"{path.name} {error}; export it with `make export`") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise BrokenModelError(f"{path.name} is no TorchScript model: {str(error).splitlines()[0]}") from None
        self.form = "int8" if self.copies else "fp32" if self.device.type == "cpu" else "gpu"
        for key in ("name", "version", "labels", "image_size", "thresholds", "golden"):
            if key not in self.metadata:
                raise BrokenModelError(f"{path.name} has no {key} in its metadata.json; export it with `make export`")
        self.labels: list[str] = self.metadata["labels"]
        self.size: int = self.metadata["image_size"]

    def load_int8(self, path: Path) -> dict[int, torch.jit.ScriptModule]:
        """Return the form in whole numbers, twice as fast, if it is wanted and this machine gives its recorded answers."""
        unwanted = self.device.type != "cpu" or os.environ.get("PETCLF_INT8") == "off"
        if unwanted or "int8" not in self.metadata or not path.exists():
            return {}
        facts, content = self.metadata["int8"], path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            logger.warning("%s belongs to another model, so fp32 answers", path.name)
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said once a process: that quantised tensors will go in some later torch
                torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
            choose_int8_kernels()
            copies = {count: load(io.BytesIO(content), self.device, frozen=count == 1) for count in INT8_SIZES}
            size = self.metadata["image_size"]
            error = max(worst_error(copies[count], facts["golden"], size, self.device, count) for count in INT8_SIZES)
        except (RuntimeError, ValueError) as reason:  # e.g. no such kernels on this CPU
            logger.warning("int8 cannot run here, so fp32 answers: %s", str(reason).splitlines()[0])
            return {}
        if not error <= TOLERANCE["int8"]:  # not a number is no answer either
            logger.warning("int8 rounds otherwise here, by %.2g, so fp32 answers", error)
            return {}
        self.metadata |= facts
        return copies

    def sizes(self, batch_size: int) -> list[int]:
        """Return how many photos the model takes at once, the largest first; never more than `batch_size`."""
        return [count for count in self.copies or range(batch_size, 0, -1) if count <= batch_size]

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Answer batches of every size: TorchScript optimises each on its second time, which takes long."""
        for count in sizes:
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
        model = self.copies.get(len(photos), self.model)
        with torch.inference_mode():
            probabilities, unlike = model(photos.to(self.device))
        rows, scores = probabilities.tolist(), unlike.tolist()
        seconds = time.perf_counter() - started
        return [self.judge(row, score) for row, score in zip(rows, scores, strict=True)], seconds

    def judge(self, row: list[float], unlike: float) -> Judgement:
        """Put one photo's numbers into words."""
        confidence = max(row)
        label = self.labels[row.index(confidence)]
        thresholds = self.metadata["thresholds"]
        because = None
        if confidence < thresholds["unsure_below"]:
            because = "close_call" if confidence - sorted(row)[-2] < CLOSE else "low_confidence"
        if unlike > thresholds["unlike_above"]:
            because = "unlike_training_photos"
        return Judgement(label, confidence, dict(zip(self.labels, row, strict=True)), unlike, because)

    def evidence(self, photo: torch.Tensor, label: str) -> torch.Tensor:
        """Return where the photo shows the label: [h, w], whose mean is the label's logit, exactly."""
        with torch.inference_mode():
            _, maps = self.model.explain(photo[None].to(self.device))
        evidence: torch.Tensor = maps[0, self.labels.index(label)].cpu()
        return evidence


def choose_int8_kernels() -> None:
    """Take oneDNN's kernels where the CPU has VNNI; by itself, torch leaves depthwise convolutions to kernels that are slower there.

    One photo through EfficientNet-Lite0 at 160 px takes 0.75 of the time (docs/experiments.md).
    """
    if torch.cpu.get_capabilities().get("avx512_vnni"):
        torch.backends.quantized.engine = "onednn"


def load(source: Path | io.BytesIO, device: torch.device, frozen: bool = True) -> torch.jit.ScriptModule:
    """Return a TorchScript module, made as fast as it gets on this device; not frozen, 7 MB smaller and 1 to 2 % slower."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what TorchServe loads
        file = source if isinstance(source, io.BytesIO) else str(source)
        scripted = torch.jit.load(file, map_location=device).eval()
        if not frozen:
            return scripted
        fast = torch.jit.freeze(scripted, preserved_attrs=["explain"])
        return torch.jit.optimize_for_inference(fast, other_methods=["explain"]) if device.type == "cpu" else fast


def portions(photos: Sequence[Photo], sizes: Sequence[int]) -> Iterator[Sequence[Photo]]:
    """Yield the photos in as few portions as these sizes allow: seven as four, two and one."""
    start = 0
    while left := len(photos) - start:
        size = next(size for size in sizes if size <= left)
        yield photos[start : start + size]
        start += size


def worst_error(
    model: torch.jit.ScriptModule, golden: list[dict[str, Any]], size: int, device: torch.device, count: int = COUNT
) -> float:
    """Return how far the model is from the recorded answers, asked for `count` of the known photos at once."""
    chosen = [index % COUNT for index in range(count)]
    with torch.inference_mode():
        probabilities, _ = model(golden_photos(size)[chosen].to(device))
    expected = torch.tensor([golden[index]["probabilities"] for index in chosen])
    return float((probabilities.cpu() - expected).abs().max())
