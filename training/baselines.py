"""How far the simplest things get, for scale: the mean colour, and a network of 20,000 numbers."""

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from training.measures import Array

SIZE = 48  # side of the photos that they see


def mean_colour(train: torch.Tensor, truth: torch.Tensor, photos: torch.Tensor, seen: torch.Tensor) -> float:
    """Return the accuracy of a logistic regression on three numbers a photo."""
    model = LogisticRegression().fit(colours(train), truth.numpy())
    return float(model.score(colours(photos), seen.numpy()))


def colours(photos: torch.Tensor) -> Array:
    shares: Array = torch.cat([part.float().mean((2, 3)) for part in photos.split(500)]).div(255).numpy()
    return shares


def tiny_network(labels: int) -> nn.Sequential:
    """Return three convolutions and a linear layer: about 20,000 numbers."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, labels))


def centred(photos: torch.Tensor) -> torch.Tensor:
    return photos.float() / 255 - 0.45


def tiny(train: torch.Tensor, truth: torch.Tensor, photos: torch.Tensor, seen: torch.Tensor, epochs: int = 8) -> float:
    """Return the accuracy of the tiny network after a few epochs."""
    torch.manual_seed(0)
    inputs, network = centred(train), tiny_network(int(truth.max()) + 1)
    batches = max(1, len(inputs) // 128)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for batch in order[: batches * 128].split(128):
            loss = functional.cross_entropy(network(inputs[batch]), truth[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        answers = torch.cat([network(part).argmax(1) for part in centred(photos).split(500)])
    return float((answers == seen).float().mean())
