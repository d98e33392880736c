"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

from tests.drawing import draw_photo


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder with cat/ and dog/, 60 drawn photos each."""
    return draw_folder(tmp_path / "photos", ("cat", "dog"), 60)


def draw_folder(root: Path, labels: tuple[str, ...], count: int) -> Path:
    """Fill root/<label>/ with `count` drawn photos each."""
    for label in labels:
        (root / label).mkdir(parents=True)
        for seed in range(count):
            draw_photo(label, seed).save(root / label / f"{label}.{seed}.jpg", quality=92)
    return root
