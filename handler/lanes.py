"""How many workers of a server may do dear work at the same time: each holds one of a few locks while it does."""

import fcntl
import os
from pathlib import Path


class Lanes:
    """The locks are files that all workers of a model share; the kernel frees those of a worker that was killed."""

    def __init__(self, folder: Path, count: int) -> None:
        self.files = [os.open(folder / f"dear-{index}.lock", os.O_RDWR | os.O_CREAT, 0o600) for index in range(count)]
        self.held: int | None = None

    def take(self) -> bool:
        """Tell whether this worker may do dear work now: it waits for nobody."""
        if self.held is None:
            self.held = next((file for file in self.files if is_free(file)), None)
        return self.held is not None

    def leave(self) -> None:
        if self.held is not None:
            fcntl.flock(self.held, fcntl.LOCK_UN)
            self.held = None


def is_free(file: int) -> bool:
    """Lock a file if nobody else has done so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
