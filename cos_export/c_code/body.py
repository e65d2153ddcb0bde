"""The body of the C file: what its statements need beside them, tables, structs and kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cos_export.c_code.layers import Memory
from cos_export.c_code.names import Identifiers
from cos_export.c_code.operations import Axis
from cos_export.c_code.tables import Table, Tables
from cos_export.network import SpikingNetwork

__all__ = ["Body"]


@dataclass
class Body:
    """The body of the C file.

    Attributes:
        network: What it runs.
        steps: T.
        memory: Of its state.
        identifiers: Of the file.
        tables: Constant arrays.
        windows: Constant structs, (type, name, fields) each.
        kernels: What the statements call.
        functions: (comment, name, lines) of each layer, and of the readout.
    """

    network: SpikingNetwork
    steps: int
    memory: Memory
    identifiers: Identifiers
    tables: Tables
    windows: list[tuple[str, str, str]] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    functions: list[tuple[str, str, list[str]]] = field(default_factory=list)

    @property
    def window(self) -> bool:
        """Whether a layer fires after all steps of its input."""
        return self.network.schedule == "layerwise"

    @property
    def frames(self) -> bool:
        """Whether there is one input for each step, in place of one that is held."""
        return self.network.input_encoding == "frames"

    @property
    def input_name(self) -> str:
        """What the code calls the input of a run."""
        return "frames" if self.frames else "image"

    @property
    def most_taps(self) -> int:
        """Of any window along one axis."""
        return self._most_taps

    _most_taps: int = 1
    _known_windows: dict[str, str] = field(default_factory=dict)

    def call(self, kernel: str, *arguments: str) -> str:
        """A statement that calls a kernel, which the file then has."""
        self.kernels.add(kernel)
        return f"{kernel}({', '.join(arguments)});"

    def table(self, layer: str, suffix: str, values: NDArray[np.integer], kind: str | None = None) -> Table:
        """A constant array."""
        return self.tables.add(layer, suffix, values, kind)

    def flat(self, layer: str, suffix: str, rows: NDArray[np.int64]) -> tuple[Table, str]:
        """(pixels or 1, channels or 1) of numbers as a table, and its arguments in a call with the strides between."""
        table = self.table(layer, suffix, rows.ravel())
        pixel = rows.shape[1] if len(rows) > 1 else 0
        channel = 1 if rows.shape[1] > 1 else 0
        return table, f"{table.name}, {pixel}u, {channel}u"

    def geometry(self, node: str, kind: str, axes: Iterable[Axis], *counts: int) -> str:
        """A constant struct that says how a window slides."""
        parts = []
        for axis in axes:
            self._most_taps = max(self._most_taps, axis.kernel)
            numbers = (axis.size, axis.results, axis.kernel, axis.stride, axis.dilation, axis.before)
            parts.append("{" + ", ".join(f"{number}u" for number in numbers) + "}")
        text = ", ".join([*parts, *(f"{count}u" for count in counts)])
        if (key := f"{kind} {text}") not in self._known_windows:
            self._known_windows[key] = self.identifiers.of(node, "_window")
            self.windows.append((kind, self._known_windows[key], "{" + text + "}"))
        return self._known_windows[key]
