"""Features of the pretrained network, and the head that is fitted on them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from handler.golden import golden_photos
from training.efficientnet import CHANNELS
from training.features import fit_head, pooled_features
from training.network import build_network


def test_the_features_are_those_of_the_pretrained_network() -> None:
    network = build_network("efficientnet_lite0", 2, pretrained=True).eval()
    with torch.inference_mode():
        expected = network.features(golden_photos(96)).mean((2, 3))

    seen = pooled_features(network, golden_photos(96).split(2))

    assert seen.shape == (3, CHANNELS)
    assert torch.allclose(seen, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [2, 5])
def test_the_head_is_scikit_learns_logistic_regression(labels: int) -> None:
    generator = torch.Generator().manual_seed(labels)
    truth = torch.arange(300) % labels
    features = torch.randn(300, 12, generator=generator) * 3 + torch.randn(labels, 12, generator=generator)[truth] + 7
    standardised = ((features - features.mean(0)) / features.std(0)).numpy()
    strength = 0.01 * 300 * (1 if labels == 2 else 2)  # for two labels it has one vector, the difference of ours
    oracle = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=1000).fit(standardised, truth.numpy())

    logits = fit_head(features, truth, labels, decay=0.01)(features)

    found = torch.softmax(logits, 1).numpy()
    expected = oracle.predict_proba(standardised)
    assert np.abs(found - expected).max() < 2e-3


def test_the_same_photos_give_the_same_head() -> None:
    features, truth = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    first, second = fit_head(features, truth, 2), fit_head(features, truth, 2)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
