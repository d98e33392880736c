"""Tests draw their photos with the same code as the benchmarks."""

from benchmarks.drawing import draw_photo, encoded

__all__ = ["draw_photo", "encoded"]
