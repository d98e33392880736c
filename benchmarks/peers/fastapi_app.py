"""FastAPI and uvicorn. `async`, and no thread pool: decoding and model take the core anyway, and a thread would only wait."""

from typing import Any

from fastapi import FastAPI, Request

from benchmarks.peers.core import Core

app = FastAPI()
core = Core()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    return core.answer(await request.body())
