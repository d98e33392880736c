"""How far a run is: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import math
import sys
import time
from typing import TextIO

from tqdm import tqdm

EVERY = 10.0  # seconds between plain lines


class Progress:
    """Told of each finished part; `there` photos were answered by earlier runs."""

    def __init__(self, total: int, there: int, file: TextIO = sys.stderr) -> None:
        self.total, self.done, self.refused = total, there, 0
        self.file = file
        self.told = time.monotonic()
        self.first: tuple[float, int] | None = None  # when the first part was finished: before that, models were loaded
        self.bar = tqdm(total=total, initial=there, unit=" photos", file=file, smoothing=0.1) if file.isatty() else None

    def add(self, photos: int, refused: int) -> None:
        self.done += photos
        self.refused += refused
        self.first = self.first or (time.monotonic(), self.done)
        if self.bar is not None:
            self.bar.set_postfix_str(f"{self.refused:,} refused" if self.refused else "", refresh=False)
            self.bar.update(photos)
        elif time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            print(self.line(), file=self.file, flush=True)

    def line(self) -> str:
        shown = f"{self.done:,} of {self.total:,} photos ({self.done / self.total:.1%}), {self.refused:,} refused"
        began, before = self.first or (math.inf, 0)
        seconds = time.monotonic() - began
        if seconds <= 0 or self.done == before:
            return shown
        rate = (self.done - before) / seconds
        return f"{shown}, {rate:,.0f} a second, {duration((self.total - self.done) / rate)} left"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
