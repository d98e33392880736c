"""A trained network in whole numbers: on a CPU it answers three times as fast, and is as often right."""

import operator
import warnings
from typing import Any

import torch
from torch import nn

from training.network import Network, SqueezeExcitation

EXAMPLES = 512  # photos that show how large the numbers between the layers get
LOSS = 0.001  # of validation accuracy; a network that loses more is released in fp32 only


class Maps(nn.Module):
    """A network's body that returns its `stages`, because the unlike score looks at all of them."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(body)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in self.layers:
            pixels = layer(pixels)
            maps.append(pixels)
        return maps[1:]


class Quantised(Network):
    """A network whose body is one piece that returns all maps."""

    def __init__(self, network: Network, body: nn.Module) -> None:
        super().__init__(nn.Sequential(body), network.classifier.in_features, network.classifier.out_features)
        self.classifier = network.classifier

    def stages(self, photos: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.body[0](self.pixels(photos))
        return maps


def quantise(network: Network, examples: torch.Tensor) -> Quantised:
    """Return the network with its body in int8 (static, a scale for each channel), which torch runs on CPUs only.

    The kernels are those for any x86: they leave one bit of the activations free, so that CPUs without VNNI, which add
    in 16 bits, do not overflow.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.ao is deprecated; its successor does not make TorchScript
        from torch.ao.quantization import quantize_fx  # noqa: PLC0415

        parts = [network.pixels(part) for part in examples.split(32)]
        one = parts[0][:1]
        prepared = quantize_fx.prepare_fx(Maps(network.body).eval(), whole_numbers_for(network), (one,))
        for part in parts:
            prepared(part)
        body = torch.jit.trace(quantize_fx.convert_fx(prepared), one)
    return Quantised(network, body).eval()


def whole_numbers_for(network: Network) -> Any:
    """Return torch's mapping of what to compute in int8: the convolutions.

    The rest is cheap in fp32, and dear in int8: torch multiplies a map by one number a channel ten times as slowly there, and
    every small operation on the channels' weights would be two or three.
    """
    from torch.ao.quantization import get_default_qconfig_mapping  # noqa: PLC0415

    mapping = get_default_qconfig_mapping("x86")
    for operation in (operator.add, operator.mul, torch.relu):
        mapping.set_object_type(operation, None)
    for name, module in network.body.named_modules():
        if isinstance(module, SqueezeExcitation):
            mapping.set_module_name(f"layers.{name}", None)
    return mapping
