"""Import this before torchvision: it lets torchvision from PyPI load beside a CPU build of torch.

torchvision registers Python versions of its operators at import, and fails when its compiled library, built for
another torch, could not declare them ("operator torchvision::nms does not exist"). Declaring the two that are asked
for is enough: networks and transforms are plain torch. Where the library loads, this does nothing.
"""

import importlib.util
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing() -> torch.library.Library | None:
    """Declare what the compiled library did not; the result must stay alive."""
    spec = importlib.util.find_spec("torchvision")
    if spec and spec.origin:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            try:
                torch.ops.load_library(library)
            except OSError:
                break
    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        declared.define(SCHEMAS[name])
    return declared


LIBRARY = declare_missing()
