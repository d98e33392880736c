"""Where each step finds what the step before it wrote; dvc.yaml names the same files."""

from pathlib import Path

MANIFEST = Path("data/manifest.csv")
CACHE = Path("build/cache")
WEIGHTS = Path("build/weights.pt")
CALIBRATION = Path("build/calibration.pt")
REPORTS = Path("reports")
MODEL = Path("build/petclf.pt")
