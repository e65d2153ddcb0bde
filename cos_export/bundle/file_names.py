"""The files of a bundle by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cos_export.reading.arrays_file import beside

__all__ = ["GOLDEN_FILE", "MANIFEST", "NIR_FILE", "ONNX_FILE", "OPTIONAL_FILES", "REPORT_FILE", "REQUIRED_FILES"]
__all__ += ["STEP_FILE", "StepFile"]

MANIFEST = "manifest.json"

NIR_FILE = "model.nir"
"""The graph with its metadata."""

ONNX_FILE = "model.onnx"
"""T steps of the network."""

GOLDEN_FILE = "golden.npz"
"""The reference run."""

REPORT_FILE = "report.html"
"""The page for people."""

REQUIRED_FILES = (GOLDEN_FILE, NIR_FILE, ONNX_FILE, REPORT_FILE)
"""What every bundle holds beside its manifest."""

StepFile = Literal["model_step.onnx"]

STEP_FILE: StepFile = get_args(StepFile)[0]
"""One step of the network; a bundle of an earlier format has none."""

OPTIONAL_FILES = (STEP_FILE, *(beside(Path(name)).name for name in (ONNX_FILE, STEP_FILE)))
"""What a bundle may hold beside it: arrays that have no room in an ONNX graph lie in a file of their own."""
