"""The bundle: the folder that export writes, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cos_export.network import SpikingNetwork

__all__ = ["Bundle"]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: Its folder.
        manifest: What manifest.json says.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def nir_path(self) -> Path:
        """model.nir."""
        return self.path / "model.nir"

    @property
    def onnx_path(self) -> Path:
        """model.onnx."""
        return self.path / "model.onnx"

    @cached_property
    def network(self) -> SpikingNetwork:
        """The network, read from model.nir."""
        from cos_export.nir_file import read_nir

        return read_nir(self.nir_path)
