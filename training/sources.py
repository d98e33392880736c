"""Photos by name instead of by path: Oxford-IIIT Pet, and anything on Kaggle."""

import shutil
import subprocess
from pathlib import Path

from training.errors import UserError
from training.torchvision_ops import declare_missing

DOWNLOADS = Path("data/downloads")
OXFORD = "oxford-iiit-pet"
KAGGLE = "kaggle:"


def photos_at(place: str, downloads: Path = DOWNLOADS) -> Path:
    """Return the folder or zip that `place` means, downloaded if it is a name."""
    if place == OXFORD:
        return oxford(downloads / OXFORD)
    if place.startswith(KAGGLE):
        return kaggle(place.removeprefix(KAGGLE), downloads)
    return Path(place)


def oxford(folder: Path) -> Path:
    """Return Oxford-IIIT Pet as <label>/* folders of links, through torchvision's own dataset class."""
    declare_missing()
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  (only after the declaration)

    sorted_photos = folder / "by-label"
    if sorted_photos.is_dir():
        return sorted_photos
    try:
        parts = [OxfordIIITPet(str(folder), split, "binary-category", download=True) for split in ("trainval", "test")]
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot download {OXFORD}: {error}; try again, or give a folder of photos") from None
    unfinished = folder / ".by-label"
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in parts:
        for photo, number in zip(part._images, part._bin_labels, strict=True):
            label = unfinished / part.bin_classes[number].lower()
            label.mkdir(parents=True, exist_ok=True)
            (label / Path(photo).name).symlink_to(Path(photo).resolve())
    unfinished.rename(sorted_photos)
    return sorted_photos


def kaggle(name: str, downloads: Path) -> Path:
    """Return a Kaggle dataset's zip, fetched by the `kaggle` command."""
    archive = downloads / f"{name.replace('/', '+')}.zip"
    if archive.exists():
        return archive
    if not shutil.which("kaggle"):
        raise UserError("the kaggle command is missing; `pip install kaggle`, put your key into ~/.kaggle/kaggle.json, try again")
    partial = downloads / ".partial"
    command = ["kaggle", "datasets", "download", "--dataset", name, "--path", str(partial)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(partial.glob("*.zip"))
    if result.returncode or len(found) != 1:
        told = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
        raise UserError(
            f"kaggle could not download {name}: {told[-1]}; is the name right, and your key in ~/.kaggle/kaggle.json?"
        )
    found[0].replace(archive)
    return archive
