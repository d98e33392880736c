"""BentoML: two workers, its own adaptive batching."""

from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers.core import BATCH, Core


@bentoml.service(workers=2, traffic={"timeout": 30})
class Petclf:
    def __init__(self) -> None:
        self.core = Core()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=BATCH, max_latency_ms=1000)
    def predict(self, photos: list[Annotated[Path, ContentType("image/jpeg")]]) -> list[dict[str, Any]]:
        return self.core.answer_all([photo.read_bytes() for photo in photos])
