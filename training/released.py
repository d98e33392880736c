"""The module that becomes petclf.pt: network, temperature and the score for `unlike the training photos`."""

import torch
from torch import nn
from torch.nn import functional

from training.network import Network


class Score(nn.Module):
    """A score of a photo's summary, made of the numbers that were fitted."""

    def __init__(self, **numbers: torch.Tensor) -> None:
        super().__init__()
        for name, value in numbers.items():
            self.register_buffer(name, value)


class ImagenetUnlike(Score):
    """How much of what ImageNet's own head sees in a photo is rare in the training photos, from 0 to 1.

    The head reads features that training did not let forget it, through `narrow`: 128 directions, in half precision, serve as
    well as 1,280, in an eighth of the space. `familiar` says of each of its 1,000 classes how much rather a training photo shows
    it than any photo would: the labels may be whatever they like.
    """

    narrow: torch.Tensor
    classes: torch.Tensor
    bias: torch.Tensor
    familiar: torch.Tensor

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        return 1 - torch.softmax(self.logits(summary), 1) @ self.familiar

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the 1,000 classes' logits of pooled features [N, 1280]."""
        return functional.linear(functional.linear(features, self.narrow.float()), self.classes.float(), self.bias)


class LinearUnlike(Score):
    """How probably a photo shows none of the labels: fitted on photos of other things (linear discriminant)."""

    centre: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(((summary - self.centre) / self.scale) @ self.weight + self.bias)


class DistanceUnlike(Score):
    """How far a photo lies from every label's training photos: for when there are no photos of other things."""

    means: torch.Tensor
    scale: torch.Tensor
    typical: torch.Tensor

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        apart = (summary[:, None] - self.means[None]) / self.scale
        nearest = apart.square().sum(2).amin(1)
        return nearest / (nearest + self.typical)  # 0 at a label's centre, 1/2 where a training photo typically lies


def summarise(maps: list[torch.Tensor]) -> torch.Tensor:
    """Return what the unlike score looks at: of one map the channels' means, which a head for ImageNet's classes reads.

    Of several maps, the last one's peaks, then mean and deviation of every channel of every map. Where a network was trained from
    scratch, the early maps matter: they see textures that the last one, made to tell the labels apart, no longer tells.
    """
    if len(maps) == 1:
        return maps[0].mean((2, 3))
    means = torch.cat([features.mean((2, 3)) for features in maps], 1)
    squares = torch.cat([features.square().mean((2, 3)) for features in maps], 1)  # torch.var takes fifteen times as long
    deviations = (squares - means.square()).clamp(min=0).sqrt()
    return torch.cat([maps[-1].amax((2, 3)), means, deviations], 1)


class Released(nn.Module):
    """uint8 photos [N, 3, S, S] -> probabilities [N, labels] and unlike [N]; needs nothing but torch."""

    temperature: torch.Tensor

    def __init__(self, network: Network, temperature: float, unlike: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.unlike = unlike
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.network.stages(photos)
        logits = self.network.classifier(maps[-1].mean((2, 3)))
        probabilities = torch.softmax(logits / self.temperature, 1)
        return probabilities, self.unlike(summarise(maps))

    @torch.jit.export
    def explain(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities and, for every label, the evidence at every place [N, labels, h, w].

        The mean of a label's evidence over all places is its logit, exactly: nothing is approximated.
        """
        features = self.network.features(photos)
        classifier = self.network.classifier
        maps = functional.conv2d(features, classifier.weight[:, :, None, None], classifier.bias)
        probabilities = torch.softmax(maps.mean((2, 3)) / self.temperature, 1)
        return probabilities, maps
