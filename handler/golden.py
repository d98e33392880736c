"""Photos drawn by arithmetic, the same on every machine: a server must give the answers recorded at export."""

import torch

COUNT = 3


def golden_photos(size: int) -> torch.Tensor:
    """Return uint8 [COUNT, 3, size, size]; whole numbers only, so that no machine rounds differently."""
    place = torch.arange(size, dtype=torch.int64) * 256 // size
    x, y = place.view(1, 1, -1), place.view(1, -1, 1)
    channel = torch.arange(3, dtype=torch.int64).view(3, 1, 1)
    gradient = (x + y * 2 + channel * 60) % 256
    rings = (((x - 128) ** 2 + (y - 110) ** 2) // (24 + 8 * channel)) % 256
    fur = (x * (7 + channel) ^ y * (11 + 2 * channel)) % 256
    return torch.stack([gradient, rings, fur]).expand(COUNT, 3, size, size).to(torch.uint8)
