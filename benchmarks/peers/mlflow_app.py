"""`mlflow models serve`: photos as base64 in a data frame, for it takes JSON and CSV only."""

import base64
import sys
from typing import Any

import mlflow
import pandas as pd

from benchmarks.peers.core import Core


class Petclf(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    def load_context(self, context: Any) -> None:
        self.core = Core()

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[dict[str, Any]]:
        return self.core.answer_all([base64.b64decode(photo) for photo in model_input["photo"]])


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Petclf(), pip_requirements=[])
