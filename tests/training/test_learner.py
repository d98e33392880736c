"""What learns, what stays as it was, and what must not be forgotten."""

import copy
import math

import pytest
import torch

from handler.golden import golden_photos
from training.config import TrainConfig
from training.efficientnet import imagenet_head, imagenet_weights
from training.errors import UserError
from training.learner import Learner, divergence
from training.network import Network, build_network
from training.train import batch_size, epochs_for

FROZEN = 14  # of 18 layers: few learn, so that the test is quick


@pytest.fixture
def pretrained() -> Network:
    torch.manual_seed(0)
    return build_network("efficientnet_lite0", 2, pretrained=True).eval()


def learn(learner: Learner, remember: float, steps: int = 10) -> float:
    """Take some steps, and return what was forgotten by them."""
    photos, truth = golden_photos(64), torch.tensor([0, 1, 0])
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.002)
    for _ in range(steps):
        logits, forgotten = learner(photos)
        (torch.nn.functional.cross_entropy(logits, truth) + remember * forgotten).backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(learner(photos)[1].detach())


def test_frozen_layers_keep_their_weights_and_the_others_learn(pretrained: Network) -> None:
    before = copy.deepcopy(pretrained.state_dict())

    learn(Learner(pretrained, FROZEN, remember=False), 0)

    changed = {name for name, value in pretrained.state_dict().items() if not torch.equal(value, before[name])}
    layers = {int(name.split(".")[1]) for name in changed if name.startswith("body.")}
    assert layers == set(range(FROZEN, 18))
    assert {"classifier.weight", "classifier.bias"} <= changed


def test_no_more_layers_can_be_frozen_than_there_are(pretrained: Network) -> None:
    with pytest.raises(UserError, match=r"train\.frozen is 19, and the network has 18 layers"):
        Learner(pretrained, 19, remember=False)


def test_without_frozen_layers_all_learn() -> None:
    network = build_network("petnet", 2)
    logits, forgotten = Learner(network, 0, remember=False)(golden_photos(64))
    logits.sum().backward()

    assert all(parameter.grad is not None for parameter in network.parameters())
    assert float(forgotten.detach()) == 0


def test_the_logits_are_the_networks_own(pretrained: Network) -> None:
    photos = golden_photos(96)
    logits, forgotten = Learner(pretrained, FROZEN, remember=True)(photos)

    assert torch.allclose(logits, pretrained(photos), atol=1e-5)
    assert float(forgotten.detach()) == pytest.approx(0, abs=1e-6)


def test_who_is_to_remember_forgets_less(pretrained: Network) -> None:
    other = copy.deepcopy(pretrained)

    careless = learn(Learner(pretrained, FROZEN, remember=True), 0)
    careful = learn(Learner(other, FROZEN, remember=True), 1)

    assert careful < 0.6 * careless


def test_imagenets_head_is_the_packages() -> None:
    features, weights = torch.rand(2, 1280), imagenet_weights()
    expected = torch.nn.functional.linear(features, weights["_fc.weight"], weights["_fc.bias"])
    assert torch.allclose(imagenet_head()(features), expected, atol=1e-5)


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    ours, known = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.9, 0.1]]).log()
    assert float(divergence(ours, known)) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), abs=1e-5)
    assert float(divergence(known, known)) == 0


def test_few_photos_are_seen_often_in_small_batches(project_config: TrainConfig) -> None:
    assert [epochs_for(count, new_head=False) for count in (40, 200, 500, 1000, 5000, 18013)] == [15, 15, 10, 8, 5, 5]
    assert [epochs_for(count, new_head=True) for count in (40, 499, 500, 1000)] == [0, 0, 10, 8]
    assert [batch_size(project_config, count) for count in (20, 200, 5000)] == [8, 25, 64]
