"""From a folder of photos to petclf.pt."""

import os

# OpenMP reads this once, when torch loads it, and this package is imported before torch in every process of a training.
# Its threads otherwise spin at the end of each parallel part: beside a busy process a step takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
