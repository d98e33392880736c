"""Flask and gunicorn, threads for connections that stay open."""

from typing import Any

from flask import Flask, request

from benchmarks.peers.core import Core

app = Flask(__name__)
core = Core()


@app.post("/predict")
def predict() -> dict[str, Any]:
    return core.answer(request.get_data())
