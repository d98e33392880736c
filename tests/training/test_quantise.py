"""Networks in whole numbers."""

import pytest
import torch

from handler.photo_input import decode_photo
from tests.drawing import draw_photo, encoded
from training.network import build_network
from training.quantise import SafePairs, UpToSix, quantise


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.stack(
        [decode_photo(encoded(draw_photo(kind, seed, (90, 90))), 64) for kind in ("cat", "dog") for seed in range(8)]
    )


def test_a_pretrained_network_sees_nearly_the_same_in_int8(photos: torch.Tensor) -> None:
    network = build_network("efficientnet_lite0", 2, pretrained=True).eval()

    quantised = quantise(network, photos)

    with torch.inference_mode():
        exact, rounded = network.features(photos).mean((2, 3)), quantised.features(photos).mean((2, 3))
    assert float(torch.cosine_similarity(exact, rounded).min()) > 0.97
    kinds = {node.kind() for node in torch.jit.freeze(quantised.body[0]).inlined_graph.nodes()}
    assert {kind for kind in kinds if kind.startswith(("quantized::", "aten::"))} == {
        "quantized::conv2d", "quantized::conv2d_relu", "quantized::add", "aten::quantize_per_tensor", "aten::dequantize",
    }  # fmt: skip


def test_squeeze_excitation_and_the_sums_after_it_stay_in_fp32(photos: torch.Tensor) -> None:
    torch.manual_seed(0)
    quantised = quantise(build_network("petnet", 2).eval(), photos)
    kinds = {node.kind() for node in torch.jit.freeze(quantised.body[0]).inlined_graph.nodes()}
    assert {kind for kind in kinds if kind.startswith("quantized::")} == {"quantized::conv2d", "quantized::conv2d_relu"}


def test_no_pair_of_weights_overflows_16_bits() -> None:
    weight = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * torch.rand(64, 1, 1, 1)
    weight[0] = 0
    weight[0, 0, 0, :2] = 1.0  # the worst: two of the same size, alone
    observer = SafePairs(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    observer(weight)
    scale, zero = observer.calculate_qparams()

    whole = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8).int_repr().flatten(1).int()

    for sign in (1, -1):
        pairs = (sign * whole).clamp(min=0).topk(2).values.sum(1)
        assert int(pairs.max()) * 255 < 2**15
    assert int(whole.abs().amax(1).median()) > 60  # and no scale is larger than that takes


def test_the_range_of_a_relu6_ends_at_six() -> None:
    observer = UpToSix(dtype=torch.quint8)
    observer(torch.tensor([-0.0, 3.0, 40.0]))
    scale, zero = observer.calculate_qparams()
    assert float(scale) * 255 == pytest.approx(6)
    assert int(zero) == 0


def test_a_network_keeps_its_own_normalisation_in_int8(photos: torch.Tensor) -> None:
    network = build_network("efficientnet_lite0", 2, pretrained=True).eval()
    quantised = quantise(network, photos)
    assert torch.equal(quantised.pixels(photos), network.pixels(photos))
