"""Fitted after training, on photos the network did not learn from: temperature, and the unlike score."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from training.released import DistanceUnlike, LinearUnlike

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5.0), 400))
STRENGTH = 0.003  # of the logistic regression: few photos of other things, many channels
SHRINKAGE = 0.1


def fit_temperature(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the temperature with the least log loss."""
    losses = [nn.functional.cross_entropy(logits / float(t), truth).item() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def fit_linear(pets: torch.Tensor, others: torch.Tensor) -> LinearUnlike:
    """Learn to tell summaries [N, F] of the labels' photos from those of other things."""
    both = torch.cat([pets, others]).double()
    centre, scale = both.mean(0), both.std(0) + 1e-6
    truth = np.r_[np.zeros(len(pets)), np.ones(len(others))]
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    model.fit(((both - centre) / scale).numpy(), truth)
    weight, bias = torch.tensor(model.coef_[0]), torch.tensor(model.intercept_[0])
    return LinearUnlike(centre.float(), scale.float(), weight.float(), bias.float())


def fit_distance(summaries: torch.Tensor, truth: torch.Tensor) -> DistanceUnlike:
    """Measure how the labels' photos scatter around their centres (Mahalanobis, shrunk towards a sphere)."""
    summaries = summaries.double()
    means = torch.stack([summaries[truth == label].mean(0) for label in truth.unique(sorted=True)])
    apart = summaries - means[truth]
    covariance = apart.T @ apart / len(apart)
    sphere = torch.eye(len(covariance), dtype=torch.double) * covariance.diagonal().mean()
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere + 1e-9 * torch.eye(len(covariance))
    whitening = torch.linalg.cholesky(torch.linalg.inv(covariance))
    typical = ((apart @ whitening) ** 2).sum(1).median()
    return DistanceUnlike(means.float(), whitening.float(), typical.float())


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
    kind = {"linear": LinearUnlike, "distance": DistanceUnlike}[saved["kind"]]
    return kind(**saved["numbers"])
