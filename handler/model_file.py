"""What lies beside the weights in petclf.pt: the only reader of it, with the standard library alone, so that every tool may use it."""

import io
import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TOLERANCE = {"fp32": 1e-4, "gpu": 5e-3, "int8": 2e-2}  # of a known answer: TF32 rounds earlier; one step of int8 is a large one


class ModelFileError(ValueError):
    """This is no model of petclf; the text says why."""


@dataclass(frozen=True)
class ModelFile:
    """The facts that travel with the weights, and a photo whose answer is known."""

    metadata: dict[str, Any]
    photo: bytes

    @property
    def answers(self) -> list[list[float]]:
        """The known photo's probabilities, by each form of the model."""
        forms = [self.metadata, *([self.metadata["int8"]] if "int8" in self.metadata else [])]
        return [form["golden"][0]["probabilities"] for form in forms]

    def knows(self, probabilities: list[float]) -> bool:
        """Tell whether this is the known photo's answer by any form of the model, on any machine."""
        return any(are_alike(known, probabilities) for known in self.answers)


def are_alike(known: Collection[float], given: Collection[float]) -> bool:
    """Tell whether both may be the same model's probabilities for one photo: each form, machine and size of batch rounds otherwise."""
    furthest = max(TOLERANCE.values())
    return len(known) == len(given) and all(abs(one - other) <= furthest for one, other in zip(known, given, strict=True))


@dataclass(frozen=True)
class Archive:
    """A .mar of the model store."""

    path: Path
    name: str
    version: str
    model: ModelFile

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def read_model_file(source: Path | IO[bytes]) -> ModelFile:
    """Return what lies in a TorchScript file, which is a zip, without loading the module."""
    try:
        with zipfile.ZipFile(source) as packed:
            extra = {name.rsplit("/", 1)[-1]: name for name in packed.namelist() if "/extra/" in name}
            for wanted in ("metadata.json", "golden.png"):
                if wanted not in extra:
                    raise ModelFileError(f"holds no extra/{wanted}")
            return ModelFile(json.loads(packed.read(extra["metadata.json"])), packed.read(extra["golden.png"]))
    except zipfile.BadZipFile:
        raise ModelFileError("is no TorchScript model") from None


def read_archive(path: Path) -> Archive:
    """Return what a .mar holds, every byte of it checked."""
    try:
        with zipfile.ZipFile(path) as packed:
            if (damaged := packed.testzip()) is not None:
                raise ModelFileError(f"is damaged at {damaged}")
            manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))["model"]
            model = read_model_file(io.BytesIO(packed.read(manifest["serializedFile"])))
            archive = Archive(path, manifest["modelName"], manifest["modelVersion"], model)
            assert model.answers
            return archive
    except (zipfile.BadZipFile, KeyError, IndexError, AssertionError, json.JSONDecodeError) as error:
        raise ModelFileError("is empty" if not path.stat().st_size else f"is no archive of petclf ({error})") from None
