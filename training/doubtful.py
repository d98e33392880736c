"""Photos whose label is likely wrong, for a person to look at, by what ImageNet's network sees in them. Nothing is removed.

Another label is likelier (confident learning, Northcutt et al. 2021; cleanlab's `confident_learning`): a linear head that has
not seen a photo says how likely each label is (5 folds). A label is confident in a photo where its probability is at least
the mean over the photos that bear it. A photo is doubtful where another label than its own is confident and the likeliest.

Unlike all others: the 10th most similar photo is much less similar than it is for most photos. Logos, fences and empty
cages are among these; two labels alone cannot tell them, because none of the labels is likelier.
"""

import argparse
import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from training import efficientnet, features, network
from training.config import PARAMS, load_params
from training.data_report import Doubt, kinds, write_data_report
from training.dataset import close_pool, digest, load_split
from training.errors import run_cli
from training.files import replace_atomically
from training.manifest import SPLITS, Manifest
from training.paths import CACHE, MANIFEST

FOLDS = 5
BATCH = 256  # photos whose similarity to all is found at once
AT_ONCE = 64  # photos that the network looks at
NEIGHBOUR = 10
UNLIKE = 0.55  # of the median similarity: found 76 % of 316 photos of other things among 100 to 5,000 pets; 70 % of those listed


class Suspects(NamedTuple):
    """Doubtful photos by their numbers, most doubtful first, and the label that each more likely has."""

    photos: torch.Tensor
    labels: torch.Tensor


def held_out_probabilities(seen: torch.Tensor, truth: torch.Tensor, labels: int) -> torch.Tensor:
    """Return probabilities [N, labels], each photo's by a head that was fitted without it; every label is in every fold."""
    fold = torch.empty_like(truth)
    for label in range(labels):
        members = torch.nonzero(truth == label).flatten()
        fold[members] = torch.arange(len(members)) % FOLDS
    probabilities = torch.empty(len(truth), labels)
    for number in range(FOLDS):
        held_out = fold == number
        head = features.fit_head(seen[~held_out], truth[~held_out], labels)
        probabilities[held_out] = torch.softmax(head(seen[held_out]), 1)
    return probabilities


def find_suspects(probabilities: torch.Tensor, truth: torch.Tensor) -> Suspects:
    """Return the doubtful photos, in the order of how much likelier another label is than the given one."""
    own = probabilities.gather(1, truth[:, None]).squeeze(1)
    thresholds = torch.stack([own[truth == label].mean() for label in range(probabilities.shape[1])])
    confident = probabilities >= thresholds
    confident.scatter_(1, truth[:, None], False)
    highest, likeliest = probabilities.max(1)
    doubtful = torch.nonzero(confident.any(1) & (likeliest != truth)).flatten()
    order = torch.argsort((own - highest)[doubtful], stable=True)
    return Suspects(doubtful[order], likeliest[doubtful[order]])


def find_unlike(seen: torch.Tensor) -> torch.Tensor:
    """Return the photos that resemble no others, the strangest first."""
    standardised = (seen - seen.mean(0)) / (seen.std(0) + 1e-6)
    directions = functional.normalize(standardised, dim=1)
    count = min(NEIGHBOUR + 1, len(seen))  # the nearest is the photo itself
    similarity = torch.cat([(part @ directions.T).topk(count).values[:, -1] for part in directions.split(BATCH)])
    unlike = torch.nonzero(similarity < UNLIKE * similarity.median()).flatten()
    return unlike[torch.argsort(similarity[unlike], stable=True)]


def find_doubts(manifest: Manifest, size: int, cache: Path = CACHE) -> list[Doubt]:
    """Return the manifest's doubtful photos, each kind most doubtful first; with the training's `size` both decode once."""
    pretrained = network.build_network("efficientnet_lite0", len(manifest.labels), pretrained=True).eval()
    parts = [features_of(manifest, split, size, pretrained, cache) for split in SPLITS]
    seen, truth = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    probabilities = held_out_probabilities(seen, truth, len(manifest.labels))
    rows = [row for split in SPLITS for row in manifest.split(split)]
    suspects = find_suspects(probabilities, truth)
    own = probabilities.gather(1, truth[:, None]).squeeze(1).tolist()
    swapped = {photo: manifest.labels[label] for photo, label in zip(*map(torch.Tensor.tolist, suspects), strict=True)}
    strange = [photo for photo in find_unlike(seen).tolist() if photo not in swapped]
    return [
        *(Doubt(rows[photo], own[photo], label) for photo, label in swapped.items()),
        *(Doubt(rows[photo], own[photo], "") for photo in strange),
    ]


def features_of(
    manifest: Manifest, split: str, size: int, pretrained: network.Network, cache: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features [N, 1280] and label numbers [N] of a split; computed once, then kept beside the pixels."""
    photos, truth = load_split(manifest, split, size, cache)
    path = cache / f"features-{split}-{size}-{key(digest(manifest.split(split), size))}.npy"
    if not path.exists():
        batches = tqdm(photos.split(AT_ONCE), desc=f"looking for doubtful labels in {split}", unit="batch", disable=None)
        seen = features.pooled_features(pretrained, batches).numpy()
        replace_atomically(path, lambda temporary: save(temporary, seen))
    return torch.from_numpy(np.load(path)), truth


def key(photos: str) -> str:
    """Name what features depend on: the photos as they are decoded, the weights, and the code that computes with them."""
    code = "".join(Path(str(module.__file__)).read_text() for module in (efficientnet, network, features))
    return hashlib.sha256(f"{photos} {efficientnet.SHA256} {code}".encode()).hexdigest()[:16]


def save(path: Path, seen: np.ndarray) -> None:
    with path.open("wb") as file:  # numpy adds .npy to a name, not to a file
        np.save(file, seen)


def can_look() -> bool:
    """Return whether the network that looks is installed."""
    return importlib.util.find_spec(efficientnet.PACKAGE) is not None


def look(manifest: Manifest, report: Path, size: int) -> None:
    """Put the doubtful photos into the data report, and say how many there are."""
    doubts = find_doubts(manifest, size)
    close_pool()
    write_data_report(manifest, report, doubts)
    counts = ", ".join(f"{len(kind):,} {name}" for name, kind in kinds(doubts).items())
    print(f"doubtful labels: {counts}" + (f"; look at {report / 'doubtful.png'}" if doubts else ""))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="List photos whose label is likely wrong in the data report; none is removed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of photos, as `make data` writes it")
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    args = parser.parse_args(argv)
    manifest = Manifest.read(args.manifest)
    look(manifest, args.manifest.parent / "report", load_params(args.params).train.image_size)


if __name__ == "__main__":
    run_cli(main)
