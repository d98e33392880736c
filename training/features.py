"""What a network that knows ImageNet sees in photos, and the linear head that tells labels apart by it."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from training.efficientnet import MEAN, STD, efficientnet_lite0_body, load_imagenet

DECAY = 0.01  # of the head's weights on standardised features: chosen on validation photos (docs/experiments.md)


class Head(NamedTuple):
    """A linear map from pooled features [N, C] to logits [N, labels]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return functional.linear(features, self.weight, self.bias)


def imagenet_body() -> nn.Sequential:
    """Return EfficientNet-Lite0's body as ImageNet taught it, not to be trained."""
    body = efficientnet_lite0_body()
    load_imagenet(body)
    return body.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def pooled_features(body: nn.Module, photos: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Return the mean over places of the body's last map [N, 1280], of uint8 photos [N, 3, S, S]."""
    parts = (((part.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last) for part in photos.split(batch))
    return torch.cat([body(part).mean((2, 3)) for part in parts])


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
