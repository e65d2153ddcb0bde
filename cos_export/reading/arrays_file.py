"""Where the arrays of an ONNX graph lie that have no room in it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["beside"]


def beside(path: Path) -> Path:
    """The file for the arrays of the graph at `path`: model.onnx.data beside model.onnx."""
    return path.with_name(f"{path.name}.data")
