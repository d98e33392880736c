"""One petclf server as a queue, simulated: who waits how long, in which batches, and who is refused.

A request is let in if fewer than `most` are inside (the gateway's GATEWAY_IN_FLIGHT), passes the front (nginx, Java), and waits in one
queue. A free worker takes the first that waits, then up to `delay` for more, at most `batch`. The batch takes `service(size, now)`
seconds, all of it is answered together, and the worker takes the next.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from handler.limits import QUEUE

BATCH = 8  # batchSize in model-config.yaml

Service = Callable[[int, float], float]  # photos in the batch, and when it begins -> seconds
Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Server:
    """What is known of a server; the defaults are those that petclf ships with."""

    service: Service
    front: float = 0.0  # seconds of a request outside the queue and the worker
    workers: int = 2
    batch: int = BATCH
    delay: float = 0.001  # maxBatchDelay there
    most: float = QUEUE


@dataclass
class Result:
    """What became of the requests."""

    answered: list[float] = field(default_factory=list)  # seconds, from when they were due
    waited: list[float] = field(default_factory=list)  # seconds in the queue, of those that have left it
    refused: int = 0
    in_time: int = 0  # answered before the last request was due
    batches: list[int] = field(default_factory=list)
    busy: float = 0.0  # seconds that workers worked
    ended: float = 0.0  # when the last was answered


class Simulation:
    """Requests that meet a server."""

    def __init__(self, server: Server, dues: Sequence[float]) -> None:
        self.server, self.dues, self.result = server, dues, Result()
        self.world = simpy.Environment()
        self.queue = simpy.Store(self.world)
        self.collecting = simpy.Resource(self.world, 1)  # TorchServe lets one worker at a time take from the queue
        self.inside = 0

    def run(self) -> Result:
        self.world.process(self.arrivals())
        for _ in range(self.server.workers):
            self.world.process(self.worker())
        self.world.run()
        self.result.ended = self.world.now
        return self.result

    def arrivals(self) -> Steps:
        for due in self.dues:
            yield self.world.timeout(due - self.world.now)
            if self.inside >= self.server.most:
                self.result.refused += 1
            else:
                self.inside += 1
                self.world.process(self.request())

    def request(self) -> Steps:
        due, answered = self.world.now, self.world.event()
        yield self.world.timeout(self.server.front / 2)
        self.queue.put((answered, self.world.now))
        yield answered
        yield self.world.timeout(self.server.front / 2)
        self.inside -= 1
        self.result.answered.append(self.world.now - due)
        self.result.in_time += self.world.now <= self.dues[-1]

    def worker(self) -> Steps:
        while True:
            batch: list[Any] = []
            with self.collecting.request() as turn:
                yield turn
                yield from self.collect(batch)
            begun = self.world.now
            self.result.waited += [begun - queued for _, queued in batch]
            yield self.world.timeout(self.server.service(len(batch), begun))
            for answered, _ in batch:
                answered.succeed()
            self.result.batches.append(len(batch))
            self.result.busy += self.world.now - begun

    def collect(self, batch: list[Any]) -> Steps:
        """Wait for the first request, and then a moment for more."""
        batch.append((yield self.queue.get()))
        end = self.world.timeout(self.server.delay)
        while len(batch) < self.server.batch:
            more = self.queue.get()
            yield more | end
            if not more.triggered:
                more.cancel()
                return
            batch.append(more.value)


def simulate(server: Server, dues: Sequence[float]) -> Result:
    """Let requests come at these seconds, in order; returns when all that were let in are answered."""
    return Simulation(server, dues).run()
