"""Batches of photos -> batches of other views of them; everything is one tensor operation for the whole batch."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from training.config import TrainConfig

PART = 16  # photos: their pixels stay in a core's cache from one step to the next, which makes it twice as fast


def augment(photos: torch.Tensor, size: int, config: TrainConfig, generator: torch.Generator) -> torch.Tensor:
    """Return uint8-ranged float views [N, 3, size, size] of uint8 photos [N, 3, C, C]."""
    parts = photos.split(PART if photos.device.type == "cpu" else len(photos))
    return torch.cat([augment_part(part, size, config, generator) for part in parts])


def augment_part(photos: torch.Tensor, size: int, config: TrainConfig, generator: torch.Generator) -> torch.Tensor:
    views = crop(photos, size, config, generator)
    if config.colour:
        views = jitter_colour(views, config.colour, generator)
    if config.corruption:
        views = corrupt(views, config.corruption, generator)
    return views


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Return `count` numbers between low and high."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def crop(photos: torch.Tensor, size: int, config: TrainConfig, generator: torch.Generator) -> torch.Tensor:
    """Crop, stretch, rotate and mirror in one resampling."""
    pixels = photos.float()
    while pixels.shape[-1] >= 2 * size:  # bilinear sampling skips pixels when it shrinks by more than two
        pixels = functional.avg_pool2d(pixels, 2)
    count = len(photos)
    side = uniform(count, config.zoom[0], config.zoom[1], generator).sqrt()
    stretch = (uniform(count, -1, 1, generator) * math.log(config.aspect) / 2).exp()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    mirror = torch.where(uniform(count, 0, 1, generator) < 0.5, -1.0, 1.0)
    angle = uniform(count, -1, 1, generator) * math.radians(config.rotation)
    x, y = (uniform(count, -1, 1, generator) * (1 - width), uniform(count, -1, 1, generator) * (1 - height))
    cos, sin = angle.cos(), angle.sin()
    rows = (torch.stack([cos * width * mirror, -sin * height, x], 1), torch.stack([sin * width * mirror, cos * height, y], 1))
    grid = affine_grid(torch.stack(rows, 1), size)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def affine_grid(matrices: torch.Tensor, size: int) -> torch.Tensor:
    """Return where each pixel of a view lies in its photo [N, size, size, 2]: torch's own, in half the time."""
    middles = (torch.arange(size, device=matrices.device) * 2 + 1) / size - 1
    across, down = middles.view(1, 1, size, 1), middles.view(1, size, 1, 1)
    along_x, along_y, shift = matrices[:, None, None].unbind(-1)
    return along_x * across + along_y * down + shift


def jitter_colour(views: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Change brightness, contrast and saturation, each photo by its own amounts."""
    brightness, contrast, saturation = (
        uniform(len(views), 1 - strength, 1 + strength, generator).view(-1, 1, 1, 1) for _ in range(3)
    )
    grey = views.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    # one pass: colour = (grey + saturation (v - grey) - level) contrast + level, all times brightness
    views = views.mul(saturation * contrast * brightness)
    views += grey.mul_((1 - saturation) * contrast * brightness) + level * (1 - contrast) * brightness
    return views.clamp_(0, 255)


def corrupt(views: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Make a share of the photos grey, another blurred, another dark, another noisy; save another as a poor JPEG."""
    grey, blurred, dark, noisy, poor = ((uniform(len(views), 0, 1, generator) < share).nonzero().squeeze(1) for _ in range(5))
    views[grey] = views[grey].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    views[blurred] = blur(views[blurred], uniform(1, 0.2, 0.5, generator).item())
    light = uniform(len(dark), 0.15, 0.7, generator).view(-1, 1, 1, 1)
    views[dark] = add_noise(views[dark] * light, 2, 10, generator)  # a camera's own: less light, not less noise
    views[noisy] = add_noise(views[noisy], 5, 30, generator)
    for index, quality in zip(poor.tolist(), uniform(len(poor), 8, 40, generator).tolist(), strict=True):
        views[index] = as_jpeg(views[index], round(quality))
    return views


def blur(views: torch.Tensor, scale: float) -> torch.Tensor:
    """Shrink and enlarge again: what a photo loses that was small before it was sent, or out of focus."""
    size = views.shape[-1]
    small = functional.interpolate(views, scale_factor=scale, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=(size, size), mode="bilinear")


def add_noise(views: torch.Tensor, least: float, most: float, generator: torch.Generator) -> torch.Tensor:
    """Add noise, to each photo as much as its own deviation says."""
    deviation = uniform(len(views), least, most, generator).view(-1, 1, 1, 1)
    noise = torch.randn(views.shape, generator=generator, device=views.device)
    return (views + noise * deviation).clamp(0, 255)


def as_jpeg(view: torch.Tensor, quality: int) -> torch.Tensor:
    """Return what a photo [3, S, S] looks like after it was saved as a JPEG of this quality."""
    buffer = io.BytesIO()
    Image.fromarray(view.round().byte().permute(1, 2, 0).cpu().numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).to(view)


def mix(views: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend every photo, and its target [N, labels], with another of the batch (mixup)."""
    share = uniform(1, 0, 1, generator)
    return views.roll(1, 0).lerp_(views, share), targets.roll(1, 0).lerp_(targets, share)
