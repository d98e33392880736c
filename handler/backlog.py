"""How long a request may have waited: TorchServe does not tell, but its queue is first in, first out and holds QUEUE requests."""

import time
from collections import deque

from handler.limits import QUEUE

PAUSE = 0.02  # seconds without work: nothing can have waited


class Backlog:
    """Remembers when this worker took its last QUEUE requests.

    What comes now has waited at most since the first of them was taken, for those before it in the queue were no more than QUEUE,
    and at most since this worker last had nothing to do. Several workers share a queue, so it is often less. Requests that took
    long make the bound too high; the gateway says when it handed a request on, and then nobody needs the bound.
    """

    def __init__(self) -> None:
        self.taken: deque[float] = deque(maxlen=QUEUE)
        self.free_since = 0.0

    def longest_wait(self, count: int) -> float:
        """Return how long the `count` requests that have just come may have waited, in seconds."""
        now = time.monotonic()
        if now - self.free_since > PAUSE:
            self.taken.clear()
        longest = now - self.taken[0] if self.taken else 0.0
        self.taken.extend([now] * count)
        return longest

    def answered(self) -> None:
        self.free_since = time.monotonic()
