"""What a network sees in photos, and the linear head that tells labels apart by it."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch.nn import functional

from training.network import Network

DECAY = 0.01  # of the head's weights on standardised features: chosen on validation photos (docs/experiments.md)


class Head(NamedTuple):
    """A linear map from pooled features [N, C] to logits [N, labels]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return functional.linear(features, self.weight, self.bias)


@torch.inference_mode()
def pooled_features(network: Network, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the mean over places of the network's last map [N, C], of batches of photos [n, 3, S, S]."""
    return torch.cat([network.features(batch).mean((2, 3)) for batch in batches])


def fit_head(features: torch.Tensor, truth: torch.Tensor, labels: int, decay: float = DECAY) -> Head:
    """Fit a multinomial logistic regression: convex, so that the same photos give the same head. Seconds for 20,000 photos."""
    centre, scale = features.mean(0), features.std(0) + 1e-6
    standardised = (features - centre) / scale
    weight = torch.zeros(labels, features.shape[1], requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(functional.linear(standardised, weight, bias), truth) + decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    folded = weight.detach() / scale
    return Head(folded, bias.detach() - folded @ centre)
