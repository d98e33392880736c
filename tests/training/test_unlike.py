"""The score for what ImageNet's head sees in a photo and does not see in the training photos."""

import pytest
import torch

from training.calibrate import fit_imagenet
from training.efficientnet import imagenet_weights

LABELS, OTHERS = range(281, 286), range(600, 640)


def features_of(classes: range, strength: float = 15.0) -> torch.Tensor:
    """Return pooled features which ImageNet's head takes for these classes."""
    weight = imagenet_weights()["_fc.weight"][list(classes)]
    return strength * weight / weight.norm(dim=1, keepdim=True)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def training_features(generator: torch.Generator) -> torch.Tensor:
    chosen = features_of(LABELS)[torch.randint(len(LABELS), (200,), generator=generator)]
    return (chosen + 0.05 * torch.randn(chosen.shape, generator=generator)).clamp(min=0)


def test_what_the_training_photos_show_is_familiar_and_the_rest_is_not(generator: torch.Generator) -> None:
    training = training_features(generator)
    score = fit_imagenet(training)

    own, others = score(training), score(features_of(OTHERS))

    assert float(own.median()) < 0.2
    assert float(others.median()) > 0.8
    assert float(own.quantile(0.97)) < float(others.quantile(0.03))


def test_the_score_is_a_probability(generator: torch.Generator) -> None:
    values = fit_imagenet(training_features(generator))(torch.rand(50, 1280, generator=generator) * 3)

    assert bool(((values >= 0) & (values <= 1)).all())


def test_128_directions_say_nearly_what_the_whole_head_says(generator: torch.Generator) -> None:
    training, weights = training_features(generator), imagenet_weights()
    pooled = torch.cat([training, features_of(OTHERS)])

    narrow = torch.softmax(fit_imagenet(training).logits(pooled), 1)

    whole = torch.softmax(torch.nn.functional.linear(pooled, weights["_fc.weight"], weights["_fc.bias"]), 1)
    assert float((narrow.argmax(1) == whole.argmax(1)).float().mean()) > 0.9
