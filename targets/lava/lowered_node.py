"""What the worker is told of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["LoweredNode"]


@dataclass(frozen=True)
class LoweredNode:
    """A node as the worker reads it.

    Attributes:
        kind: "input", "output", "neuron", "convolution", "linear", "scale", "pool" or "flatten".
        settings: What JSON can hold.
        arrays: Weights, thresholds and states.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
