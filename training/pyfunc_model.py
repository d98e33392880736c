"""petclf.pt as MLflow runs it: a column of photos in (bytes, or base64 of them), one row of answers each out."""

import base64
import json

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from handler.photo_input import decode_photo


class PetclfModel(PythonModel):
    """Answers like the server does: the same reading of photos, the same module."""

    def load_context(self, context: PythonModelContext) -> None:
        extra = {"metadata.json": ""}
        self.model = torch.jit.load(context.artifacts["model"], _extra_files=extra)
        self.metadata = json.loads(extra["metadata.json"])

    def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> pd.DataFrame:
        photos = [decode_photo(photo_bytes(photo), self.metadata["image_size"]) for photo in model_input["photo"]]
        with torch.inference_mode():
            probabilities, unlike = self.model(torch.stack(photos))
        confidence, answers = probabilities.max(1)
        labels, thresholds = self.metadata["labels"], self.metadata["thresholds"]
        unsure = (confidence < thresholds["unsure_below"]) | (unlike > thresholds["unlike_above"])
        columns = {
            "label": [labels[index] for index in answers.tolist()],
            "unsure": unsure.tolist(),
            "confidence": confidence.double().tolist(),
            "unlike": unlike.double().tolist(),
        }
        for index, label in enumerate(labels):
            columns[f"probability_{label}"] = probabilities[:, index].double().tolist()
        return pd.DataFrame(columns)


def photo_bytes(photo: str | bytes) -> bytes:
    """Return a photo's bytes; JSON and CSV can only hold them as base64."""
    return photo if isinstance(photo, bytes) else base64.b64decode(photo)


set_model(PetclfModel())
