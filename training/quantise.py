"""A trained network in whole numbers: on a CPU it answers three times as fast, and is as often right."""

import copy
import operator
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver, QConfig, QConfigMapping

from training.network import Network, SqueezeExcitation, hear_the_warning

EXAMPLES = 512  # photos that show how large the numbers between the layers get


class Maps(nn.Module):
    """A network's body that returns its `stages`, because the unlike score looks at them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(network.body))
        self.every_stage = network.every_stage

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in self.layers:
            pixels = layer(pixels)
            maps.append(pixels)
        return maps[1:] if self.every_stage else maps[-1:]


class Quantised(Network):
    """A network whose body is one piece that returns the maps of its stages."""

    def __init__(self, network: Network, body: nn.Module) -> None:
        super().__init__(nn.Sequential(body), network.classifier.in_features, network.classifier.out_features)
        self.classifier, self.mean, self.std = network.classifier, network.mean, network.std

    def stages(self, photos: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.body[0](self.pixels(photos))
        return maps


class UpToSix(MinMaxObserver):
    """Sees what ReLU6 lets through. Numbers in int8 end where their range does, so that a ReLU there is a ReLU6."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp(max=6.0))


class SafePairs(PerChannelMinMaxObserver):
    """A scale for each output channel, in which no two weights of one sign add up to more than 127.

    CPUs without VNNI multiply two activations (up to 255) by two weights and add both in 16 bits: 255 x 128 still fits.
    torch's own remedy, activations of 7 bits, costs the accuracy of all maps, and would let ReLU6 through up to 12.
    """

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        rows = weight.flatten(1)
        sums = [(sign * rows).clamp(min=0).topk(min(2, rows.shape[1])).values.sum(1) for sign in (1, -1)]
        self.pairs = torch.maximum(*sums)
        return super().forward(weight)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero = super().calculate_qparams()
        return torch.maximum(scale, self.pairs / 127), zero


def quantise(network: Network, examples: torch.Tensor) -> Quantised:
    """Return the network with its body in int8 (static, a scale for each channel), which torch runs on CPUs only."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.ao is deprecated; its successor does not make TorchScript
        from torch.ao.quantization import quantize_fx  # noqa: PLC0415

        hear_the_warning()
        parts = [network.pixels(part) for part in examples.split(32)]
        one = parts[0][:1]
        body, mapping = whole_numbers_for(Maps(network).eval())
        prepared = quantize_fx.prepare_fx(body, mapping, (one,))
        for part in parts:
            prepared(part)
        traced = torch.jit.trace(quantize_fx.convert_fx(prepared), one)
    return Quantised(network, traced).eval()


def whole_numbers_for(body: nn.Module) -> tuple[nn.Module, QConfigMapping]:
    """Return the body as torch can fuse it, and the mapping of what to compute in int8: convolutions, and sums of their maps.

    petnet's squeeze-excitation, and the sums and ReLUs after it, stay in fp32: torch multiplies a map by one number a channel
    ten times as slowly in int8, and every small operation on the channels' weights would be two or three.
    """
    weights = SafePairs.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    usual, up_to_six = (
        QConfig(activation=kind.with_args(dtype=torch.quint8), weight=weights) for kind in (MinMaxObserver, UpToSix)
    )
    mapping = QConfigMapping().set_global(usual)
    for name, module in body.named_modules():
        if isinstance(module, SqueezeExcitation):
            mapping.set_module_name(name, None)
            for operation in (operator.add, operator.mul, torch.relu):
                mapping.set_object_type(operation, None)
    for parent, names in before_relu6(body):
        setattr(body.get_submodule(parent), names[-1], nn.ReLU().eval())
        for name in names:
            mapping.set_module_name(f"{parent}.{name}", up_to_six)
    return body, mapping


def before_relu6(body: nn.Module) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield where convolution, batch normalisation and ReLU6 follow each other: the parent's name, and theirs in it."""
    for parent, module in list(body.named_modules()):
        children = list(module.named_children()) if isinstance(module, nn.Sequential) else []
        for one, two, three in zip(children, children[1:], children[2:], strict=False):
            if isinstance(one[1], nn.Conv2d) and isinstance(three[1], nn.ReLU6):
                yield parent, (one[0], two[0], three[0])
