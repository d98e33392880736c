"""Which part of a network learns, and what it must not forget meanwhile."""

import copy

import torch
from torch import nn
from torch.nn import functional

from training.efficientnet import imagenet_head
from training.errors import UserError
from training.network import Network


class Learner(nn.Module):
    """A network as the training sees it: photos -> logits, and how much of ImageNet it has forgotten.

    The first `frozen` layers of the body keep their weights: they see edges and textures, which are everybody's, and take half of
    the time. Where it is to `remember`, ImageNet's own head reads the features that are being trained, and what it says of a photo
    must stay what it said before. The unlike score lives on that: features that only learned to tell the labels apart no longer tell
    them from other things (docs/experiments.md).
    """

    def __init__(self, network: Network, frozen: int, remember: bool) -> None:
        super().__init__()
        self.network = network
        self.frozen = frozen
        if frozen > len(network.body):
            raise UserError(f"train.frozen is {frozen}, and the network has {len(network.body)} layers")
        network.body[:frozen].requires_grad_(False)
        self.teacher = copy.deepcopy(network.body[frozen:]).eval().requires_grad_(False) if remember else None
        self.imagenet = imagenet_head() if remember else None

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad() if self.frozen else torch.enable_grad():
            shared = self.network.body[: self.frozen](self.network.pixels(photos))
        slow_in_bf16 = photos.device.type == "cpu" and self.frozen > 0  # the gradients of depthwise convolutions: 2.6 times
        with torch.autocast(photos.device.type, enabled=torch.is_autocast_enabled(photos.device.type) and not slow_in_bf16):
            return self.learn(shared.float() if slow_in_bf16 else shared)

    def learn(self, shared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Go on from the map of the last frozen layer."""
        pooled = self.network.body[self.frozen :](shared).mean((2, 3))
        logits = self.network.classifier(pooled)
        if self.teacher is None or self.imagenet is None:
            return logits, torch.zeros((), device=logits.device)
        with torch.no_grad():
            known = self.imagenet(self.teacher(shared).mean((2, 3)))
        return logits, divergence(self.imagenet(pooled), known)


def divergence(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of answers from those that were known."""
    ours, theirs = functional.log_softmax(logits.float(), 1), functional.log_softmax(known.float(), 1)
    return functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
