"""build/calibration.pt: what was chosen for a network's answers after its training, and is measured and exported with them."""

import hashlib
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from training.calibrate import rebuild_unlike
from training.errors import UserError
from training.figures import Promise
from training.files import write_atomically
from training.network import Network, hear_the_warning, read_checkpoint


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What belongs to one form of the network, and would be wrong for another."""

    temperature: float
    unsure_below: float
    promise: Promise
    unlike: dict[str, Any]  # kind and numbers of the score
    unlike_above: float
    fitted_on_other_things: bool
    reference: dict[str, Any]

    def unlike_score(self) -> nn.Module:
        return rebuild_unlike(self.unlike)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted to both forms, and the int8 form itself: its weights alone do not bring it back."""

    weights: str  # sha256 of the weights file
    fp32: Fitted
    int8: Fitted | None
    int8_network: bytes | None

    def quantised(self) -> Network | None:
        """Return the int8 form, which has the same ways in as the network."""
        if not self.int8_network:
            return None
        hear_the_warning()
        return cast(Network, torch.jit.load(io.BytesIO(self.int8_network)))


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it; the int8 network goes in as numbers, because torch writes bytes as text, half as large again."""
    content = asdict(calibration)
    if calibration.int8_network:
        content["int8_network"] = torch.frombuffer(bytearray(calibration.int8_network), dtype=torch.uint8)
    buffer = io.BytesIO()  # to a file, torch would write the temporary file's name
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def read_calibration(path: Path, weights: Path) -> Calibration:
    """Return the calibration of these weights."""
    content = read_checkpoint(path, "run `make evaluate`")
    if content.get("weights") != digest(weights):
        raise UserError(f"{path} belongs to other weights than {weights}; run `make evaluate`")
    try:
        fp32, network = as_fitted(content["fp32"]), content["int8_network"]
        int8 = as_fitted(content["int8"]) if content["int8"] else None
    except (KeyError, TypeError):
        raise UserError(f"{path} was written by another version of petclf; run `make evaluate`") from None
    network = None if network is None else network.numpy().tobytes()
    return Calibration(weights=content["weights"], fp32=fp32, int8=int8, int8_network=network)


def as_fitted(content: dict[str, Any]) -> Fitted:
    return Fitted(**{**content, "promise": Promise(**content["promise"])})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
