"""Photos drawn by code: tests and benchmarks need no real one."""

import io
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageDraw

pillow_heif.register_heif_opener()

BACKGROUNDS = ((90, 120, 150), (140, 140, 120), (110, 90, 80), (160, 170, 180))


def draw_photo(label: str, seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A noisy photo of one shape: cat is a triangle, dog a disc, any other label a cross."""
    random = np.random.default_rng([seed, *label.encode()])
    width, height = size
    noise = random.normal(0, 12, (height, width, 3)) + BACKGROUNDS[random.integers(len(BACKGROUNDS))]
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    noise += (random.normal(0, 30) * across + random.normal(0, 30) * down)[:, :, None]
    photo = Image.fromarray(noise.clip(0, 255).astype("uint8"))
    pen = ImageDraw.Draw(photo)
    for _ in range(6):  # clutter, so that no two photos look alike
        start, end = random.uniform(0, 1, 2) * size, random.uniform(0, 1, 2) * size
        pen.line([*start, *end], fill=tuple(int(value) for value in random.integers(0, 120, 3)), width=3)
    radius = min(size) * random.uniform(0.22, 0.34)
    x, y = random.uniform(0.4, 0.6) * width, random.uniform(0.4, 0.6) * height
    colour = tuple(int(value) for value in random.integers(150, 256, 3))
    if label == "cat":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    elif label == "dog":
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    else:
        thick = radius / 3
        pen.rectangle([x - radius, y - thick, x + radius, y + thick], fill=colour)
        pen.rectangle([x - thick, y - radius, x + thick, y + radius], fill=colour)
    return photo


def encoded(photo: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The photo as a file's bytes."""
    buffer = io.BytesIO()
    photo.save(buffer, format, **options)
    return buffer.getvalue()


def draw_folder(folder: Path, count: int = 32) -> Path:
    """Fill a folder with photos of cats and dogs of a usual size, for when there are no real ones; returns it."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        photo = draw_photo("cat" if index % 2 else "dog", index, (500, 375))
        (folder / f"{index}.jpg").write_bytes(encoded(photo, quality=90))
    return folder
