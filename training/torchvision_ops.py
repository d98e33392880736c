"""Call `declare_missing()` before importing torchvision: torchvision from PyPI then loads beside a CPU build of torch.

torchvision registers Python versions of its operators at import, and fails when its compiled library, built for
another torch, could not declare them ("operator torchvision::nms does not exist"). Declaring the two that are asked
for is enough: networks and transforms are plain torch. Where the library loads, this does nothing.
"""

import contextlib
import importlib.util
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


DECLARED: list[torch.library.Library] = []  # a declaration lives as long as its object


def declare_missing() -> list[str]:
    """Declare what the compiled library did not; return which operators those were."""
    load_compiled()
    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(SCHEMAS[name])
        DECLARED.append(library)
    return missing


def load_compiled() -> None:
    """Load torchvision's compiled library if this torch can."""
    spec = importlib.util.find_spec("torchvision")
    for library in Path(spec.origin).parent.glob("_C*.so") if spec and spec.origin else ():
        with contextlib.suppress(OSError):
            torch.ops.load_library(library)
