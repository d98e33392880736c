"""TorchServe as its tutorials have it: a BaseHandler, the defaults of everything else."""

from typing import Any

import torch
from ts.torch_handler.base_handler import BaseHandler

from handler.photo_input import decode_photo


class Stock(BaseHandler):  # type: ignore[misc]
    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        photos = [row.get("data") or row.get("body") for row in data]
        return torch.stack([decode_photo(bytes(photo or b""), 160) for photo in photos]).to(self.device)

    def postprocess(self, data: Any) -> list[dict[str, Any]]:
        probabilities, _ = data
        return [{"label": "dog" if dog > cat else "cat", "confidence": max(cat, dog)} for cat, dog in probabilities.tolist()]
