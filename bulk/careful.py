"""Photos that kill whoever reads them: found by reading each in a process of its own, once a part has killed its workers."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from bulk.source import Photo
from handler.photo_input import decode_photo
from handler.refusal import Refusal, attempt

SIZE = 160  # pixels of the square's side; any, for what kills is reading
DEADLY = "reading the photo ended the process that read it"


def survivors(photos: Iterator[Photo], read: Callable[[bytes], None]) -> Iterator[Photo]:
    """Yield the photos, with a refusal in the place of those that a child process did not survive."""
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(new_child())
        for name, data in photos:
            if not isinstance(data, Refusal):
                try:
                    child.submit(read, data).result()
                except BrokenProcessPool:
                    yield name, Refusal("internal_error", DEADLY)
                    child = stack.enter_context(new_child())
                    continue
            yield name, data


def new_child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def try_to_read(data: bytes) -> None:
    """Read a photo and forget it; refusals are told later, by whoever reads it for its answer."""
    attempt(decode_photo, data, SIZE)
