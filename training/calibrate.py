"""Fitted after training, on photos the network did not learn from: temperature, and the unlike score."""

from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from training.efficientnet import imagenet_head
from training.released import DistanceUnlike, ImagenetUnlike, LinearUnlike

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5.0), 400))
DIRECTIONS = 128  # of the 1,280 that ImageNet's head reads
CHANCE = 0.01  # ten times a class's share of ImageNet: whose mean probability on the training photos is above it, is familiar
SHRINKAGE = 0.1  # of the discriminant's covariance: few photos of other things, many channels


def fit_temperature(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the temperature with the least log loss."""
    losses = [nn.functional.cross_entropy(logits / float(t), truth).item() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def fit_imagenet(pooled: torch.Tensor) -> ImagenetUnlike:
    """Find out what ImageNet's head sees in the training photos, by their pooled features [N, 1280]."""
    head = imagenet_head()
    spread = pooled.std(0) + 0.05  # what varies little among photos may be rounded more
    weight = head.weight - head.weight.mean(0)
    left, strength, right = torch.linalg.svd(weight * spread, full_matrices=False)
    narrow, classes = (right[:DIRECTIONS] / spread).half(), (left[:, :DIRECTIONS] * strength[:DIRECTIONS]).half()
    familiar = torch.zeros(len(classes))
    score = ImagenetUnlike(narrow=narrow.contiguous(), classes=classes.contiguous(), bias=head.bias.detach(), familiar=familiar)
    seen = torch.softmax(score.logits(pooled), 1).mean(0)
    score.familiar.copy_(seen / (seen + CHANCE))
    return score


def fit_linear(pets: torch.Tensor, others: torch.Tensor) -> LinearUnlike:
    """Learn to tell summaries [N, F] of the labels' photos from those of other things."""
    centre, scale = pets.double().mean(0), pets.double().std(0) + 1e-3
    both = ((torch.cat([pets, others]).double() - centre) / scale).numpy()
    truth = np.r_[np.zeros(len(pets)), np.ones(len(others))]
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=[0.5, 0.5]).fit(both, truth)
    weight, bias = torch.tensor(model.coef_[0]), torch.tensor(model.intercept_[0])
    return LinearUnlike(centre=centre.float(), scale=scale.float(), weight=weight.float(), bias=bias.float())


def fit_distance(summaries: torch.Tensor, truth: torch.Tensor) -> DistanceUnlike:
    """Measure how the labels' photos scatter around their centres, each channel by itself."""
    summaries = summaries.double()
    means = torch.stack([summaries[truth == label].mean(0) for label in truth.unique(sorted=True)])
    apart = summaries - means[truth]
    scale = apart.std(0) + 1e-3
    typical = (apart / scale).square().sum(1).median()
    return DistanceUnlike(means=means.float(), scale=scale.float(), typical=typical.float())


def synthetic_others(size: int, count: int, seed: int = 0) -> torch.Tensor:
    """Return pictures of nothing, uint8: flat colours, gradients, noise and stripes."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    slope = (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 2
    ramp = torch.linspace(-0.5, 0.5, size).view(1, 1, 1, -1)
    stripes = torch.sin(torch.linspace(0, 1, size).view(1, 1, -1, 1) * torch.rand(count, 1, 1, 1, generator=generator) * 120)
    noise = torch.randn(count, 3, size, size, generator=generator)
    kind = torch.arange(count).view(-1, 1, 1, 1) % 4
    pictures = colour + (kind == 1) * slope * ramp + (kind == 2) * 0.3 * noise + (kind == 3) * 0.3 * stripes
    return (pictures.expand(-1, 3, size, size) * 255).clamp(0, 255).to(torch.uint8)


def rebuild_unlike(saved: dict[str, Any]) -> nn.Module:
    """Return the unlike score that `build/calibration.pt` holds."""
    kind = {"imagenet": ImagenetUnlike, "linear": LinearUnlike, "distance": DistanceUnlike}[saved["kind"]]
    return kind(**saved["numbers"])
