"""Ray Serve: two replicas of one core each, batches of eight that wait a millisecond."""

import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.core import BATCH, Core


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Petclf:
    def __init__(self) -> None:
        self.core = Core()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.001)
    async def answer(self, photos: list[bytes]) -> list[dict[str, Any]]:
        return self.core.answer_all(photos)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.answer(await request.body())


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Petclf.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
