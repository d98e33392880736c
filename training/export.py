"""weights, calibration and figures -> petclf.pt: TorchScript that needs nothing but torch."""

import argparse
import hashlib
import io
import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from handler.golden import golden_photos
from handler.model_file import TOLERANCE
from training.config import PARAMS, ExportConfig, load_params
from training.errors import UserError, run_cli
from training.figures import Figures, Form, as_json, read_figures
from training.files import write_atomically
from training.fitted import Calibration, Fitted, digest, read_calibration
from training.network import Network, count_parameters, load_weights
from training.paths import CALIBRATION, MODEL, REPORTS, WEIGHTS
from training.provenance import git_commit
from training.released import Released

LOADS_ALONE = (
    "import sys, torch; model = torch.jit.load(sys.argv[1]); size = int(sys.argv[2]); "
    "model(torch.zeros(1, 3, size, size, dtype=torch.uint8)); model.explain(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))"
)


def export(weights: Path, calibration: Path, metrics: Path, config: ExportConfig, output: Path) -> dict[str, Any]:
    """Write petclf.pt after proving it; returns its metadata."""
    network, saved = load_weights(weights)
    fitted, figures = read_calibration(calibration, weights), read_figures(metrics)
    if figures.calibration != digest(calibration):
        raise UserError(f"{metrics} measured another model than {weights} with {calibration}; run `make evaluate`")
    golden = golden_photos(saved["image_size"])
    scripted = released(network, fitted.fp32, golden)
    metadata = describe(saved, fitted.fp32, figures, config, answers(scripted, golden), count_parameters(network))
    content, int8 = export_int8(fitted, figures, golden)
    metadata |= int8
    extra = {"golden.png": as_png(golden[0]), "metadata.json": json.dumps(metadata, ensure_ascii=False, indent=1).encode()}
    write_atomically(output.with_name("petclf-int8.pt"), content)
    write_atomically(output, as_bytes(scripted, extra))
    prove_alone(output, saved["image_size"])
    return metadata


def export_int8(fitted: Calibration, figures: Figures, golden: torch.Tensor) -> tuple[bytes, dict[str, Any]]:
    """Return the int8 form and its facts; without one the file is empty, so that none of another model is taken for it."""
    network = fitted.quantised()
    if not (network and fitted.int8 and figures.int8):
        return b"", {}
    int8 = released(network, fitted.int8, golden)
    content = as_bytes(int8)
    own = facts(fitted.int8, answers(int8, golden))
    return content, {"int8": {"sha256": hashlib.sha256(content).hexdigest(), **own, "metrics": headlines(figures.int8)}}


def released(network: Network, fitted: Fitted, golden: torch.Tensor) -> torch.jit.ScriptModule:
    """Return the network with what was fitted to it, as TorchScript that was compared with what it was made from."""
    eager = Released(network, fitted.temperature, fitted.unlike_score()).eval()
    scripted = torch.jit.script(eager)
    compare(eager, scripted, golden)
    return scripted


def as_bytes(scripted: torch.jit.ScriptModule, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer, _extra_files=extra or {})
    return buffer.getvalue()


def compare(released: Released, scripted: torch.jit.ScriptModule, photos: torch.Tensor) -> None:
    """Refuse a scripted module whose answers differ from the eager one's."""
    with torch.inference_mode():
        for size in (photos.shape[-1], 64):
            some = photos[:, :, :size, :size]
            pairs = [
                *zip(released(some), scripted(some), strict=True),
                *zip(released.explain(some), scripted.explain(some), strict=True),
            ]
            worst = max(float((eager - script).abs().max()) for eager, script in pairs)
            if worst > TOLERANCE["fp32"]:
                raise UserError(f"the scripted model differs from the trained one by {worst:.2g}; nothing was exported")


def as_png(photo: torch.Tensor) -> bytes:
    """Return a photo as a file that loses nothing: what a server is asked with before it may be called ready."""
    buffer = io.BytesIO()
    Image.fromarray(photo.permute(1, 2, 0).numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def answers(scripted: torch.jit.ScriptModule, photos: torch.Tensor) -> list[dict[str, Any]]:
    """Return what the golden photos must be answered with."""
    with torch.inference_mode():
        probabilities, unlike = scripted(photos)
    return [
        {"golden": index, "probabilities": row.tolist(), "unlike": float(score)}
        for index, (row, score) in enumerate(zip(probabilities, unlike, strict=True))
    ]


def describe(
    saved: dict[str, Any],
    fitted: Fitted,
    figures: Figures,
    config: ExportConfig,
    golden: list[dict[str, Any]],
    parameters: int,
) -> dict[str, Any]:
    """Return what travels with the weights."""
    return {
        "name": config.name,
        "version": config.version,
        "labels": saved["labels"],
        "image_size": saved["image_size"],
        "parameters": parameters,
        "provenance": {
            "git_commit": saved["git_commit"],
            "exported_by": git_commit(),
            "exported_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "data_digest": saved["data_digest"],
            "mlflow_run": saved["mlflow_run"],
            "training": saved["config"],
            "versions": saved["versions"],
        },
        "metrics": headlines(figures),
        **facts(fitted, golden),
    }


def headlines(figures: Form) -> dict[str, Any]:
    names = ("test", "sure", "promise", "unlike", "camera_photos")
    return {name: as_json(getattr(figures, name)) for name in names if getattr(figures, name)}


def facts(fitted: Fitted, golden: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what belongs to one form of the network, and would be wrong for another."""
    return {
        "thresholds": {"unsure_below": fitted.unsure_below, "unlike_above": fitted.unlike_above},
        "reference": fitted.reference,
        "golden": golden,
    }


def prove_alone(path: Path, size: int) -> None:
    """Load the file in a fresh interpreter that sees none of our code."""
    command = [sys.executable, "-I", "-W", "ignore", "-c", LOADS_ALONE, str(path.resolve()), str(size)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        path.unlink()
        raise UserError(f"{path} does not load by itself and was removed: {result.stderr.strip().splitlines()[-1]}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=PARAMS, help="file with the settings")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="trained weights, with calibration.pt beside them")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder with metrics.json, as `make evaluate` writes it")
    parser.add_argument("--output", type=Path, default=MODEL, help="model to write")
    args = parser.parse_args(argv)
    calibration = args.weights.parent / CALIBRATION.name
    metadata = export(args.weights, calibration, args.reports / "metrics.json", load_params(args.params).export, args.output)
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {metadata['name']} {metadata['version']}, {size:.1f} MB, labels {', '.join(metadata['labels'])}")


if __name__ == "__main__":
    run_cli(main)
