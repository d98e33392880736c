"""petclf.pt -> model_store/NAME-VERSION.mar: everything a worker needs in one file, the same bytes on every machine."""

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from handler.model_file import ModelFileError, read_model_file
from web.build import page

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # it does not close its version.txt
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_archiver_error import ModelArchiverError
    from model_archiver.model_packaging_utils import ModelExportUtils

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "pretrained" / "petclf.pt"
STORE = Path("model_store")
HANDLER = "petclf_handler.py"
ALWAYS = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold


class ArchiveError(Exception):
    """Something the user can put right."""


def build_archive(model: Path, output: Path) -> str:
    """Write a model's archive and, beside it, its digest; returns the digest."""
    return write(packed(model)[0], output)


def write(data: bytes, path: Path) -> str:
    digest = hashlib.sha256(data).hexdigest()
    put(data, path)
    put(f"{digest}  {path.name}\n".encode(), path.with_name(path.name + ".sha256"))
    return digest


def is_other(data: bytes, path: Path) -> bool:
    return path.exists() and path.read_bytes() != data


def require_same(data: bytes, path: Path) -> None:
    """Raise if other bytes are there: what a version is must not change under whoever uses it."""
    if is_other(data, path):
        raise ArchiveError(f"{path} is there with other bytes; give the model another version, or insist: make archive REPLACE=1")


def packed(model: Path) -> tuple[bytes, str]:
    """Return a model's archive, and the name of its file in a store."""
    try:
        metadata = read_model_file(model).metadata
    except FileNotFoundError:
        raise ArchiveError(f"no model at {model}; run `make export`, or give --model") from None
    except ModelFileError as error:
        raise ArchiveError(f"{model} {error}; export it with `make export`") from None
    files = collect(model, metadata)
    data = pack({**files, "provenance.json": provenance(metadata, files), "MAR-INF/MANIFEST.json": manifest(metadata)})
    return data, f"{metadata['name']}-{metadata['version']}.mar"


def collect(model: Path, metadata: dict[str, Any]) -> dict[str, bytes]:
    """Return what a worker needs, by its name in the archive."""
    paths = {f"handler/{path.name}": path for path in (ROOT / "handler").glob("*.py")}
    paths[HANDLER] = paths.pop(f"handler/{HANDLER}")
    paths |= {"model-config.yaml": ROOT / "handler" / "model-config.yaml", "petclf.pt": model}
    int8 = model.with_name("petclf-int8.pt")
    if "int8" in metadata and int8.exists():
        paths[int8.name] = int8
        if hashlib.sha256(int8.read_bytes()).hexdigest() != metadata["int8"]["sha256"]:
            raise ArchiveError(f"{int8} is not {model.name}'s int8 form; export both with `make export`, or remove it")
    return {"page.html": page(metadata), **{name: path.read_bytes() for name, path in paths.items()}}


def provenance(metadata: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """Return where the model comes from, and the digest of every file."""
    facts = {key: metadata.get(key) for key in ("name", "version", "labels", "provenance", "metrics")}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return (json.dumps({**facts, "files": digests}, ensure_ascii=False, indent=1) + "\n").encode()


def manifest(metadata: dict[str, Any]) -> bytes:
    """Return torch-model-archiver's manifest; its zip is not used, because order and dates in it change with every run."""
    config = ModelArchiverConfig(
        model_name=metadata["name"], version=metadata["version"], handler=HANDLER, serialized_file="petclf.pt",
        config_file="model-config.yaml",
    )  # fmt: skip
    try:
        ModelExportUtils.check_model_name_regex_or_exit(config.model_name)
    except ModelArchiverError:
        raise ArchiveError(f"{config.model_name!r} is no name for a model; use letters, digits, dots, hyphens") from None
    content = json.loads(ModelExportUtils.generate_manifest_json(config))
    content["createdOn"] = metadata.get("provenance", {}).get("exported_at", "")
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True).encode()


def pack(files: dict[str, bytes]) -> bytes:
    """Return a zip in which nothing depends on when and where it is made: order, dates, rights, compression."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, ALWAYS)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # the same on Windows
            packed.writestr(entry, content)
    return archive.getvalue()


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="a petclf.pt, or an address of MLflow such as models:/petclf@champion")
    parser.add_argument("--output", type=Path, help="archive to write, with its sha256 beside it; model_store/NAME-VERSION.mar")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--replace", action="store_true", help="write over an archive that has other bytes")
    there.add_argument(
        "--keep",
        action="store_true",
        help="build only where there is no archive, and say so if the one there is not of today's files",
    )
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
            data, name = packed(local_model(str(args.model), Path(folder)))
        path: Path = args.output or STORE / name
        if args.keep and any(path.parent.glob("*.mar")):
            if is_other(data, path):
                print(f"note: {path} was not built from the files that are here now; make archive REPLACE=1 builds it anew")
            return
        if not args.replace:
            require_same(data, path)
        digest = write(data, path)
    except ArchiveError as error:
        sys.exit(said(str(error)))
    except OSError as error:
        sys.exit(said(f"cannot write {args.output or STORE}: {error.strerror}"))
    print(f"{path}: {len(data) / 1e6:.1f} MB, sha256 {digest}")


def said(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
