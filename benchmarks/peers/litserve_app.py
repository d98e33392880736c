"""LitServe: two workers, batches of eight that wait a millisecond."""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.peers.core import BATCH, Core


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.core = Core()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, photos: list[bytes]) -> list[dict[str, Any]]:
        return self.core.answer_all(photos)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
