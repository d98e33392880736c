"""Helper processes, one a core, that end when the training ends, also when it is killed."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import torch


def start_pool(method: str | None = None) -> ProcessPoolExecutor:
    """Return a pool of as many processes as there are cores, started by `method` (fork, spawn) or as is usual here."""
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context(method), initializer=begin)


def begin() -> None:
    """Keep to one core, and end with whoever started this."""
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """Leave this process when the one that started it is gone: a pool's workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
