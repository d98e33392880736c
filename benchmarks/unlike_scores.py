"""Which score tells photos of other things best? Each is fitted without the test photos and the measuring half of the others."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import training  # noqa: F401  before torch: it decides how OpenMP's threads wait

# isort: split
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from benchmarks.record import write_record
from training.calibrate import fit_imagenet
from training.dataset import load_others, load_split
from training.efficientnet import imagenet_head
from training.features import Head, fit_head
from training.fit import SAMPLE, sample
from training.manifest import Manifest
from training.memory import keep_memory
from training.network import Network, load_weights
from training.paths import MANIFEST, WEIGHTS
from training.seen import look

Score = Callable[[torch.Tensor], torch.Tensor]  # pooled features [N, C] -> the higher, the stranger
REFUSE = 0.03  # of the validation photos


def scores(training_photos: torch.Tensor, truth: torch.Tensor, others: torch.Tensor, head: Head) -> dict[str, Score]:
    """Return the scores, fitted on features of training photos and, where the name says so, of other things."""
    imagenet = imagenet_head()
    centre, scale = training_photos.mean(0), training_photos.std(0) + 1e-6

    def standard(features: torch.Tensor) -> torch.Tensor:
        return (features - centre) / scale

    bank = functional.normalize(standard(training_photos), dim=1)
    by_label, alone = (
        mahalanobis(standard(training_photos), truth),
        mahalanobis(standard(training_photos), torch.zeros_like(truth)),
    )
    _, _, directions = torch.linalg.svd(standard(training_photos), full_matrices=False)
    main = directions[:256]
    repeats = max(1, len(training_photos) // len(others))
    both = torch.cat([training_photos, others.repeat(repeats, 1)])
    taught = fit_head(both, torch.tensor([0] * len(training_photos) + [1] * (len(both) - len(training_photos))), 2, 0.1)
    familiar = fit_imagenet(training_photos)
    named = [*range(151, 269), *range(281, 286)]  # the dogs and the cats of ImageNet

    def strange_to_imagenet(features: torch.Tensor) -> torch.Tensor:
        return 1 - torch.softmax(familiar.logits(features), 1) @ familiar.familiar

    def taught_by_others(features: torch.Tensor) -> torch.Tensor:
        return taught(features).diff(dim=1)[:, 0]

    return {
        "maximum softmax": lambda features: -torch.softmax(head(features), 1).amax(1),
        "energy": lambda features: -torch.logsumexp(head(features), 1),
        "distance to the 10th nearest training photo (cosine)": lambda features: (
            -(functional.normalize(standard(features), dim=1) @ bank.T).topk(10).values[:, -1]
        ),
        "Mahalanobis": lambda features: by_label(standard(features)),
        "relative Mahalanobis": lambda features: by_label(standard(features)) - alone(standard(features)),
        "residual beside 256 directions (ViM's)": lambda features: (standard(features) - standard(features) @ main.T @ main).norm(
            dim=1
        ),
        "ImageNet's head: energy": lambda features: -torch.logsumexp(imagenet(features), 1),
        "ImageNet's head: SCALE at 85 %": lambda features: -torch.logsumexp(imagenet(scaled(features, 0.15)), 1),
        "ImageNet's head: mass of its cats and dogs, by name": lambda features: (
            -torch.softmax(imagenet(features), 1)[:, named].sum(1)
        ),
        "ImageNet's head: what it sees in training photos (released)": strange_to_imagenet,
        "logistic regression, taught by other things": taught_by_others,
        "the last two together": lambda features: (
            strange_to_imagenet(features).clamp(1e-6, 1 - 1e-6).logit() + taught_by_others(features)
        ),
    }


def mahalanobis(features: torch.Tensor, truth: torch.Tensor, shrinkage: float = 0.1) -> Score:
    means = torch.stack([features[truth == label].mean(0) for label in truth.unique()])
    apart = features - means[truth]
    covariance = apart.T @ apart / len(apart)
    eye = torch.eye(len(covariance)) * covariance.diagonal().mean()
    inverse = torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * eye)

    def score(seen: torch.Tensor) -> torch.Tensor:
        away = seen[:, None] - means
        return ((away @ inverse) * away).sum(2).amin(1)

    return score


def scaled(features: torch.Tensor, share: float) -> torch.Tensor:
    """Scale features by how much of their sum the largest ones hold (SCALE, Xu et al. 2024)."""
    largest = features.topk(round(features.shape[1] * share)).values.sum(1, keepdim=True)
    return features * (features.sum(1, keepdim=True) / largest.clamp(min=1e-6)).exp()


def microseconds(score: Score, features: torch.Tensor, calls: int = 100) -> float:
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        score(features)
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--outliers", type=Path, required=True, help="folder or zip of photos of other things")
    args = parser.parse_args()
    keep_memory()
    network, saved = load_weights(args.weights)
    manifest, size = Manifest.read(args.manifest), saved["image_size"]
    seen = {name: features(network, load_split(manifest, name, size)[0]) for name in ("val", "test")}
    photos, truth = sample(manifest, size, SAMPLE)
    learn, other = (features(network, load_others(args.outliers, size, half)) for half in ("learn", "measure"))
    head = Head(network.classifier.weight.detach(), network.classifier.bias.detach())
    lines = ["| score | others refused | test photos refused | area under ROC | µs |", "|---|---|---|---|---|"]
    compared = scores(features(network, photos), truth, learn, head)
    with torch.inference_mode():
        for name, score in compared.items():
            pets, strange = score(seen["test"]), score(other)
            above = score(seen["val"]).quantile(1 - REFUSE)
            area = roc_auc_score(np.r_[np.zeros(len(pets)), np.ones(len(strange))], torch.cat([pets, strange]).numpy())
            refused = [float((values > above).double().mean()) for values in (strange, pets)]
            torch.set_num_threads(1)
            lines.append(f"| {name} | {refused[0]:.1%} | {refused[1]:.1%} | {area:.4f} | {microseconds(score, other[:1]):.0f} |")
    note = f"{len(other)} photos of other things; each threshold refuses {REFUSE:.0%} of the validation photos; µs: one photo, one thread"
    print(write_record("unlike_scores", "Scores for photos of other things", "python -m benchmarks.unlike_scores", lines, note))


def features(network: Network, photos: torch.Tensor) -> torch.Tensor:
    return look(network, photos).summaries


if __name__ == "__main__":
    main()
