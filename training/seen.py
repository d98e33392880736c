"""What a network makes of photos: shared by the step that chooses and the step that measures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from handler.statistics import photo_statistics
from training.dataset import decode_row, pool
from training.errors import UserError
from training.manifest import Row
from training.measures import Array
from training.network import Network
from training.released import summarise


@dataclass
class Seen:
    """A network's logits [N, labels] and summaries [N, F] of photos, and the photos' label numbers."""

    truth: torch.Tensor
    logits: torch.Tensor
    summaries: torch.Tensor

    def probabilities(self, temperature: float) -> Array:
        return torch.softmax(self.logits.double() / temperature, 1).numpy()


def look(network: Network, pixels: torch.Tensor, truth: torch.Tensor | None = None) -> Seen:
    """Run the photos through the network once."""
    logits, summaries = [], []
    with torch.inference_mode():
        for part in pixels.split(128):
            maps = network.stages(part)
            logits.append(network.classifier(maps[-1].mean((2, 3))))
            summaries.append(summarise(maps))
    truth = torch.zeros(len(pixels), dtype=torch.long) if truth is None else truth
    seen = Seen(truth, torch.cat(logits), torch.cat(summaries))
    if not seen.logits.isfinite().all():
        raise UserError("the network answers some photos with no number (its training diverged); train again")
    return seen


def read_all(paths: list[str], size: int, change: Callable[[bytes], bytes] | None = None, name: str = "reading") -> torch.Tensor:
    """Read photos in as many processes as there are cores."""
    results = pool().map(partial(decode_row, size=size, change=change), paths, chunksize=16)
    photos = list(tqdm(results, total=len(paths), desc=name, unit="photo", disable=None))
    return torch.stack([torch.from_numpy(photo) for photo in photos])


def statistics(pixels: torch.Tensor, rows: list[Row]) -> dict[str, Array]:
    """Return what the photos are like, each an array [N]."""
    parts = [photo_statistics(part) for part in pixels.split(250)]
    result = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return {**result, "width": np.array([row.width for row in rows]), "height": np.array([row.height for row in rows])}
