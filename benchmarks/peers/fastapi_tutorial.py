"""FastAPI as its tutorials have it: Pillow reads the photo, and the model is what torch.jit.load gives."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image

app = FastAPI()
model = torch.jit.load(str(Path(__file__).parents[2] / "pretrained" / "petclf.pt")).eval()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    photo = Image.open(io.BytesIO(await request.body())).convert("RGB").resize((160, 160), Image.Resampling.BILINEAR)
    batch = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        probabilities, _ = model(batch)
    cat, dog = probabilities[0].tolist()
    return {"label": "dog" if dog > cat else "cat", "confidence": max(cat, dog)}
