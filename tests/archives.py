"""Archives for tests: the released model under another version, and archives in which something is wrong."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handler.archive_digest import PROVENANCE
from scripts.build_archive import build_archive, pack

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "pretrained" / "petclf.pt"


def archive_called(version: str, folder: Path, **thresholds: float) -> Path:
    """Build the released model's archive, in both its forms, under another version, and perhaps with other thresholds."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"model-{version}.pt"
    shutil.copy(MODEL.with_name("petclf-int8.pt"), folder)
    with zipfile.ZipFile(MODEL) as old, zipfile.ZipFile(model, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("metadata.json"):
                content = json.loads(data)
                for form in (content, content["int8"]):
                    form["thresholds"] |= thresholds
                data = json.dumps({**content, "version": version}).encode()
            new.writestr(entry, data)
    path = folder / f"petclf-{version}.mar"
    build_archive(model, path)
    model.unlink()
    return path


def with_file(archive: Path, target: Path, name: str, change: Callable[[bytes], bytes], provenance: bool = True) -> Path:
    """Write an archive in which one file is another; its provenance knows that, or does not."""
    with zipfile.ZipFile(archive) as packed:
        files = {entry: packed.read(entry) for entry in packed.namelist()}
    files[name] = change(files[name])
    if provenance:
        files[PROVENANCE] = renewed(files)
    target.write_bytes(pack(files))
    return target


def renewed(files: dict[str, bytes]) -> bytes:
    content: dict[str, Any] = json.loads(files[PROVENANCE])
    content["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in content["files"]}
    return json.dumps(content).encode()
