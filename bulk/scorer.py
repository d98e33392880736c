"""One process's model: photos in, rows out. Knows the handler and no Ray, so that it can be tested and moved."""

import hashlib
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bulk import rows
from bulk.errors import BulkError
from bulk.rows import Row
from handler import cost
from handler.archive_digest import MANIFEST
from handler.classifier import BrokenModelError, Classifier, portions
from handler.photo_input import open_photo, to_square
from handler.question import Request, read_question
from handler.refusal import Refusal, attempt

BATCH = 8  # photos that the model sees at once, at most; int8 takes four
SECONDS = 60.0  # for reading one photo: a hostile one must end, and a slow machine must not change the answer
INT8 = "petclf-int8.pt"
READING = ("photo_input.py", "cost.py", "limits.py", "classifier.py", "answer.py", "refusal.py", "question.py", "model_file.py")

Photo = tuple[bytes, bytes | Refusal]  # its name; what was read, or why nothing was


@dataclass(frozen=True)
class Model:
    """The archive that answers."""

    archive: bytes
    sha256: str
    name: str
    version: str

    @classmethod
    def of(cls, path: Path) -> "Model":
        """Read an archive; only what is needed to say which one it is."""
        try:
            content = path.read_bytes()
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                manifest = json.loads(packed.read(MANIFEST))["model"]
        except FileNotFoundError:
            raise BulkError(f"there is no archive at {path}; `make archive` builds one") from None
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise BulkError(f"{path} is no archive of petclf: {error}; build it again with `make archive`") from None
        return cls(content, hashlib.sha256(content).hexdigest(), manifest["modelName"], manifest["modelVersion"])

    def other_reading(self) -> list[str]:
        """Return the handler's files that decide an answer and differ between the archive and this checkout."""
        here = Path(__file__).parents[1] / "handler"
        with zipfile.ZipFile(io.BytesIO(self.archive)) as packed:
            there = {name: packed.read(name) for name in packed.namelist()}
        return [name for name in READING if there.get(f"handler/{name}") != (here / name).read_bytes()]


class Scorer:
    """The model, loaded, proven and warmed up as the server does it."""

    def __init__(self, model: Model) -> None:
        try:
            self.classifier = load(model)
            self.sizes = self.classifier.sizes(BATCH)
            self.classifier.warm_up(self.sizes)
            self.classifier.check_golden()
        except BrokenModelError as error:
            raise BulkError(str(error)) from None
        self.model = {"model": model.name, "version": model.version, "archive": model.sha256, "form": self.classifier.form}
        self.schema = rows.schema(self.classifier.labels)

    def score(self, photos: Iterable[Photo]) -> list[Row]:
        """Return one row a photo, in their order. Few photos are ever in memory, and none touches another's row."""
        found: list[Row] = []
        waiting: list[tuple[Row, torch.Tensor]] = []
        for name, data in photos:
            row: Row = {"path": rows.named(name), "sha256": rows.digest(data), **self.model}
            found.append(row)
            pixels = data if isinstance(data, Refusal) else attempt(self.read, data)
            if isinstance(pixels, Refusal):
                row |= rows.refused(pixels)
                continue
            waiting.append((row, pixels))
            if len(waiting) == self.sizes[0]:
                self.judge(waiting)
                waiting.clear()
        for some in portions(waiting, self.sizes):
            self.judge(some)
        return found

    def read(self, data: bytes) -> torch.Tensor:
        """Return a photo's pixels, or raise what the server refuses it with."""
        if not data:
            read_question(Request(""))  # it raises: a body without anything in it
        opened = open_photo(data, time.monotonic() + SECONDS)
        cost.of_photo(opened, data, self.classifier.size)
        return to_square(opened, self.classifier.size)

    def judge(self, some: Sequence[tuple[Row, torch.Tensor]]) -> None:
        judgements, _ = self.classifier.predict(torch.stack([pixels for _, pixels in some]))
        for (row, _), judgement in zip(some, judgements, strict=True):
            row |= rows.answered(judgement, self.model)

    def as_part(self, photos: Iterable[Photo]) -> tuple[bytes, list[Row]]:
        """Return a part of the answers as Parquet, and its rows."""
        found = self.score(photos)
        return rows.as_parquet(found, self.schema), found


def load(model: Model) -> Classifier:
    """Unpack the model's files and load them; nothing of the archive but these is needed."""
    with tempfile.TemporaryDirectory(prefix="petclf-") as folder, zipfile.ZipFile(io.BytesIO(model.archive)) as packed:
        name = json.loads(packed.read(MANIFEST))["model"]["serializedFile"]
        if INT8 in packed.namelist():
            packed.extract(INT8, folder)
        return Classifier(Path(packed.extract(name, folder)), "cpu", threads=1)
