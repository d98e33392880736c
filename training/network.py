"""uint8 photos -> logits. Normalisation is a layer; the last layers are a mean over places and one linear map."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handler.model_file import ModelFileError, read_model_file
from training.efficientnet import CHANNELS, MEAN, STD, efficientnet_lite0_body, load_imagenet
from training.errors import UserError
from training.torchvision_ops import declare_missing

WIDTHS = (32, 64, 128, 256)
DEPTHS = (2, 2, 3, 1)
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation of red, green and blue


Colour = tuple[float, float, float]


class Network(nn.Module):
    """Normalise, extract a feature map, average it over its places, classify linearly.

    Because the mean and the linear map commute, the classifier applied to every place of the feature map is the
    exact class activation map: see `explain` in training/released.py.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        body: nn.Sequential,
        channels: int,
        labels: int,
        pixels: tuple[Colour, Colour] = IMAGENET,
        every_stage: bool = True,
    ) -> None:
        super().__init__()
        self.every_stage = every_stage
        for name, colour in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, torch.tensor(colour).view(1, 3, 1, 1))
        self.body = body
        self.classifier = nn.Linear(channels, labels)

    def pixels(self, photos: torch.Tensor) -> torch.Tensor:
        """Return uint8 photos [N, 3, S, S] as the first layer sees them."""
        return ((photos.to(self.mean.dtype) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def stages(self, photos: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps that the unlike score looks at, the last one last, of uint8 photos [N, 3, S, S].

        Those are all but the first, which has not been through a ReLU yet; or only the last, which is enough for a network
        that knows ImageNet.
        """
        x = self.pixels(photos)
        maps: list[torch.Tensor] = []
        for layer in self.body:
            x = layer(x)
            maps.append(x)
        return maps[1:] if self.every_stage else maps[-1:]

    def features(self, photos: torch.Tensor) -> torch.Tensor:
        """Return the last feature map [N, C, h, w] of uint8 photos [N, 3, S, S]."""
        return self.stages(photos)[-1]

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Return logits [N, labels]."""
        return self.classifier(self.features(photos).mean((2, 3)))


class SqueezeExcitation(nn.Module):
    """Weigh the channels by what the whole photo shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 8)
        self.excite = nn.Linear(channels // 8, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summary = torch.relu(self.squeeze(x.mean((2, 3))))
        return x * torch.sigmoid(self.excite(summary)).unsqueeze(2).unsqueeze(3)  # two operations; [:, :, None, None] is four


class Block(nn.Module):
    """Two 3x3 convolutions and squeeze-excitation beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride),
            nn.ReLU(inplace=True),
            convolution(outputs, outputs, 3),
            SqueezeExcitation(outputs),
        )
        pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        project = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.shortcut = nn.Sequential(pool, project)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the map's size (but for its stride), then batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def petnet_body() -> nn.Sequential:
    """Our own: a stem and four stages, each at half the resolution of the one before."""
    layers: list[nn.Module] = [convolution(3, WIDTHS[0], 3, stride=2), nn.ReLU()]
    inputs = WIDTHS[0]
    for width, depth in zip(WIDTHS, DEPTHS, strict=True):
        for index in range(depth):
            layers.append(Block(inputs, width, stride=2 if index == 0 else 1))
            inputs = width
    return nn.Sequential(*layers)


def build_network(name: str, labels: int, pretrained: bool = False) -> Network:
    """Return the named network with random weights, or a torchvision backbone, pretrained if asked."""
    if name == "petnet":
        if pretrained:
            raise UserError(
                "train.pretrained is for efficientnet_lite0 and torchvision's backbones; petnet is trained from scratch"
            )
        return Network(petnet_body(), WIDTHS[-1], labels)
    if name == "efficientnet_lite0":
        body = efficientnet_lite0_body()
        if pretrained:
            load_imagenet(body)
        return Network(body, CHANNELS, labels, ((MEAN,) * 3, (STD,) * 3), every_stage=False)
    return backbone(name, labels, pretrained)


def backbone(name: str, labels: int, pretrained: bool) -> Network:
    """Return a torchvision classification network without its last layers."""
    declare_missing()
    from torchvision import models  # noqa: PLC0415  (only this function needs it, and only after the declaration)

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(
            f"train.network is {name!r}; it must be petnet, efficientnet_lite0 or one of torchvision's: {', '.join(known)}"
        )
    try:
        model = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except OSError as error:
        raise UserError(f"cannot download {name}'s pretrained weights ({error}); set train.pretrained: false") from None
    body = getattr(model, "features", None) or resnet_body(name, model)
    with torch.inference_mode():
        channels = body.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    return Network(body.train(), channels, labels)


def resnet_body(name: str, model: nn.Module) -> nn.Sequential:
    """Return the part of a ResNet-like model that ends in the feature map."""
    children = list(model.children())
    if len(children) < 3 or not isinstance(children[-1], nn.Linear):
        raise UserError(f"train.network {name!r} has no feature map followed by one linear layer; choose a ResNet, ...")
    return nn.Sequential(*children[:-2])


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def load_weights(path: Path) -> tuple[Network, dict[str, Any]]:
    """Return the trained network, ready to answer, and what the training wrote beside its weights."""
    saved = read_checkpoint(path, "train one with `make train`")
    network = build_network(saved["network"], len(saved["labels"]))
    network.load_state_dict(saved["state_dict"])
    return network.eval(), saved


def hear_the_warning() -> None:
    """Let torch say, unheard, what it says once a process: that quantised tensors will go in some later torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


def continue_from(path: Path, network: Network, labels: list[str]) -> bool:
    """Fill the network from a petclf.pt; its last layer only if that knows these very labels, which is returned."""
    advice = "give train.start_from a petclf.pt, or null"
    try:
        knows = read_model_file(path).metadata["labels"] == labels
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    except FileNotFoundError:
        raise UserError(f"no file at {path}; {advice}") from None
    except (OSError, RuntimeError, KeyError, ModelFileError) as error:
        raise UserError(f"{path} is no model of petclf ({error}); {advice}") from None
    wanted = ("body.",) if not knows else ("body.", "classifier.")
    weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    chosen = {name: value for name, value in weights.items() if name.startswith(wanted)}
    try:
        missing = network.load_state_dict(chosen, strict=False)
    except RuntimeError:
        raise UserError(f"{path} holds another network than train.network; {advice}") from None
    if missing.unexpected_keys or any(name.startswith(wanted) for name in missing.missing_keys):
        raise UserError(f"{path} holds another network than train.network; {advice}")
    return knows


def read_checkpoint(path: Path, advice: str, load: Callable[..., Any] = torch.load) -> dict[str, Any]:
    """Return a file that torch.save wrote; absent or damaged ones are told in a sentence."""
    try:
        content = load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no file at {path}; {advice}") from None
    except Exception as error:  # a damaged file raises any of half a dozen types
        raise UserError(f"{path} is damaged ({type(error).__name__}); delete it, then {advice}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not one of ours; delete it, then {advice}")
    return content
