"""Bundles that tests alter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from cos_export.bundle import sha256_of


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites the manifest after `change` has altered it in place."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def relist(folder: Path) -> None:
    """Makes the manifest agree with the files as they are now."""

    def listed(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            entry |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}

    change_manifest(folder, listed)


def scale_threshold(folder: Path, layer: str, factor: float) -> None:
    """A planted fault: the ONNX graph of another threshold, with the manifest made to agree."""
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == f"threshold/{layer}":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    onnx.save(model, folder / "model.onnx")
    relist(folder)
