"""What goes back: JSON as the API promises it, or a photo with its heat map."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from handler.classifier import Judgement
from handler.photo_input import decode_preview
from handler.refusal import Refusal

JSON = "application/json"
PICTURE_SIDE = 640


def to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def prediction(judgement: Judgement, model: Mapping[str, str], request_id: str, decode: float, run: float) -> dict[str, Any]:
    """Return the answer to one photo; `decode` and `run` are seconds."""
    return {
        "label": judgement.label,
        "confidence": round(judgement.confidence, 6),
        "probabilities": {label: round(value, 6) for label, value in judgement.probabilities.items()},
        "unsure": judgement.unsure_because is not None,
        "unsure_because": judgement.unsure_because,
        "model": model,
        "request_id": request_id,
        "milliseconds": {"decode": round(decode * 1000, 2), "model": round(run * 1000, 2)},
    }


def explanation(judgement: Judgement, evidence: torch.Tensor) -> dict[str, Any]:
    """Return where the photo shows its label: the mean of the map is the label's logit."""
    return {"label": judgement.label, "map": [[round(value, 4) for value in row] for row in evidence.tolist()]}


def refusal(reason: Refusal, request_id: str) -> dict[str, Any]:
    return {"error": {"code": reason.code, "message": reason.message, "request_id": request_id}}


def heat_picture(photo: bytes | Image.Image, evidence: torch.Tensor) -> bytes:
    """Return the photo as PNG, warm where it shows its label, darkened elsewhere."""
    picture = decode_preview(photo, PICTURE_SIDE) if isinstance(photo, bytes) else photo
    strength = evidence.clamp(min=0)
    strength = (strength / strength.max().clamp(min=1e-6) * 255).to(torch.uint8)
    heat = Image.fromarray(strength.numpy()).resize(picture.size, Image.Resampling.BICUBIC)
    weight = np.asarray(heat, dtype=np.float32)[:, :, None] / 255
    colours = np.asarray(picture, dtype=np.float32)
    warm = np.concatenate([np.full_like(weight, 255), 220 * (1 - weight) + 40, np.full_like(weight, 30)], 2)
    share = 0.55 * weight
    mixed = colours * (0.55 + 0.45 * weight) * (1 - share) + warm * share
    buffer = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
