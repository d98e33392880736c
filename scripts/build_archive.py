"""petclf.pt -> model_store/petclf.mar: everything a worker needs in one file, the same bytes on every machine."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from handler.model_file import ModelFileError, read_model_file

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "pretrained" / "petclf.pt"
OUTPUT = Path("model_store") / "petclf.mar"
HANDLER = "petclf_handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"
ALWAYS = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
ARCHIVER = "from model_archiver.model_packaging import generate_model_archive; generate_model_archive()"


class ArchiveError(Exception):
    """Something the user can put right."""


def build_archive(model: Path, output: Path) -> str:
    """Write the archive and, beside it, its digest; returns the digest."""
    metadata = read_metadata(model)
    with tempfile.TemporaryDirectory(prefix="petclf-") as temporary:
        folder = Path(temporary)
        stage = collect(model, metadata, folder / "stage")
        packed = run_archiver(stage, metadata, folder)
        whole = folder / "whole.mar"
        repack(packed, whole, metadata)
        digest = hashlib.sha256(whole.read_bytes()).hexdigest()
        put(whole.read_bytes(), output)
        put(f"{digest}  {output.name}\n".encode(), output.with_name(output.name + ".sha256"))
    return digest


def read_metadata(model: Path) -> dict[str, Any]:
    try:
        return read_model_file(model).metadata
    except FileNotFoundError:
        raise ArchiveError(f"no model at {model}; run `make export`, or give --model") from None
    except ModelFileError as error:
        raise ArchiveError(f"{model} {error}; export it with `make export`") from None


def collect(model: Path, metadata: dict[str, Any], stage: Path) -> Path:
    """Put what goes into the archive into one folder, with a list of every file's digest."""
    shutil.copytree(
        ROOT / "handler", stage / "handler", ignore=lambda _, names: [name for name in names if not name.endswith(".py")]
    )
    shutil.copy(ROOT / "handler" / "model-config.yaml", stage)
    shutil.copy(ROOT / "web" / "page.html", stage)
    shutil.move(stage / "handler" / HANDLER, stage / HANDLER)
    shutil.copy(model, stage / "petclf.pt")
    if content := int8_form(model, metadata):
        (stage / "petclf-int8.pt").write_bytes(content)
    files = {path.relative_to(stage).as_posix(): path for path in stage.rglob("*") if path.is_file()}
    provenance = {
        **{key: metadata.get(key) for key in ("name", "version", "labels", "provenance", "metrics")},
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())},
    }
    (stage / "provenance.json").write_text(json.dumps(provenance, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return stage


def int8_form(model: Path, metadata: dict[str, Any]) -> bytes:
    """Return the form for CPUs that lies beside the model, if there is one and it is this model's."""
    path = model.with_name("petclf-int8.pt")
    if "int8" not in metadata or not path.exists():
        return b""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != metadata["int8"]["sha256"]:
        raise ArchiveError(f"{path} is not {model.name}'s int8 form; export both with `make export`, or remove it")
    return content


def run_archiver(stage: Path, metadata: dict[str, Any], folder: Path) -> Path:
    """Let torch-model-archiver make the archive; its temporary folder is ours alone, for it deletes what is in its way."""
    extra = folder / "extra"
    extra.mkdir()
    apart = {"petclf.pt", HANDLER, "model-config.yaml"}
    for path in stage.iterdir():
        if path.name not in apart:
            path.rename(extra / path.name)
    options = {
        "--model-name": metadata["name"],
        "--version": metadata["version"],
        "--serialized-file": stage / "petclf.pt",
        "--handler": stage / HANDLER,
        "--config-file": stage / "model-config.yaml",
        "--extra-files": extra,
        "--export-path": folder,
    }
    command = [sys.executable, "-c", ARCHIVER, *(str(part) for pair in options.items() for part in pair)]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "TEMP": str(folder / "tmp")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    archive = folder / f"{metadata['name']}.mar"
    if result.returncode or not archive.exists():
        reason = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ArchiveError(f"torch-model-archiver failed: {reason}; `make setup` installs it")
    return archive


def repack(source: Path, target: Path, metadata: dict[str, Any]) -> None:
    """Write the archive again with nothing in it that depends on when and where: order, dates, rights, compression."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(name for name in old.namelist() if not name.endswith("/")):
            data = old.read(name)
            if name == MANIFEST:
                manifest = json.loads(data)
                manifest["createdOn"] = metadata.get("provenance", {}).get("exported_at", "")
                data = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True).encode()
            entry = zipfile.ZipInfo(name, ALWAYS)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # the same on Windows
            new.writestr(entry, data)


def put(data: bytes, path: Path) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def local_model(address: str, folder: Path) -> Path:
    """Return the model's file, fetched from MLflow where the address is one of its (models:/petclf@champion)."""
    if ":/" not in address:
        return Path(address)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow  # noqa: PLC0415  (takes seconds, and most archives are built from a file)

    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder)))
    except Exception as error:  # MLflow raises whatever its store raises
        raise ArchiveError(f"cannot get {address} from MLflow: {(str(error).splitlines() or [''])[0]}") from None
    models = sorted(found.rglob("petclf.pt"))
    if not models:
        raise ArchiveError(f"{address} holds no petclf.pt; register one with `make register`")
    return models[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default=str(MODEL), help="a petclf.pt, or an address of MLflow such as models:/petclf@champion"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
            digest = build_archive(local_model(args.model, Path(folder)), args.output)
    except ArchiveError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: cannot write {args.output}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
