"""A layer of neurons: what NIR itself has no field for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network.fields import numbers
from cos_export.network.graph import Shape

__all__ = ["Condition", "FloatArray", "NeuronSpec", "Reset", "half_potentials"]

FloatArray = NDArray[np.float32]

Condition = Literal[">=", ">"]
"""Whether a neuron at its threshold fires."""

Reset = Literal["subtract", "value"]
"""What a spike does to the potential: it takes the threshold off, or puts `v_reset` in its place."""


@dataclass(frozen=True)
class NeuronSpec:
    """A layer of integrate-and-fire neurons.

    For step t = 1..T and each neuron, with threshold theta:

        m(t) = v(t-1) + I(t) + beta(t)      charge
        s(t) = 1 if m(t) >= theta else 0    fire
        v(t) = m(t) - theta * s(t)          soft reset
        v(0) = v_init

    A graph from another tool may ask for `condition` ">" and for `reset` "value", which puts
    v(t) = v_reset where s(t) = 1: NIR's own meaning.

    Attributes:
        threshold: theta > 0, shape (channels, height, width) or (features,), in the unit of the current.
        v_init: v(0), of threshold's shape and unit.
        condition: Whether a neuron at its threshold fires (">=") or not (">").
        reset: "subtract" or "value".
        v_reset: What a neuron is reset to if reset is "value", of threshold's shape.
        bias: beta, shape (steps, channels) with the threshold's first axis as channels, or None for
            zero. Steps past its end have beta = 0.
        silent: True where a neuron's spikes are dropped while its potential goes on, or None.
        levels: L of the quantised activation that this layer stands for, or None if that was a
            clipped ReLU. No run of spikes needs it: it says what the layer should converge to.
        scale: What 1 stands for in a network of integers, one number for each channel, or None. No run needs it.
    """

    threshold: FloatArray
    v_init: FloatArray
    condition: Condition = ">="
    reset: Reset = "subtract"
    v_reset: FloatArray | None = None
    bias: FloatArray | None = None
    silent: NDArray[np.bool_] | None = None
    levels: int | None = None
    scale: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.threshold)
        if not shape:
            raise NetworkError("threshold must have an axis: (channels, height, width) or (features,).")
        for name in ("threshold", "v_init", "v_reset", "bias", "scale"):
            if getattr(self, name) is not None:
                numbers(name, getattr(self, name))
        if not np.all(np.asarray(self.threshold, np.float32) > 0):
            raise NetworkError("A threshold must be a positive number, also in float32.")
        if self.scale is not None and not np.all(np.asarray(self.scale) > 0):
            raise NetworkError("scale must be a positive number.")
        if self.reset == "value" and self.v_reset is None:
            raise NetworkError('reset "value" needs v_reset.')
        for name in ("v_init", "v_reset", "silent"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise NetworkError(f"{name} has shape {np.shape(value)}, and threshold {shape}: they must be equal.")
        if self.bias is not None and (np.ndim(self.bias) != 2 or np.shape(self.bias)[1] != shape[0]):
            raise NetworkError(f"bias must be (steps, {shape[0]}), and has shape {np.shape(self.bias)}.")
        if self.levels is not None and (not isinstance(self.levels, int | np.integer) or self.levels < 1):
            raise NetworkError(f"levels must be at least 1 and whole, and is {self.levels!r}.")
        if self.silent is not None and not np.isin(numbers("silent", self.silent), (0, 1)).all():
            raise NetworkError("silent must hold booleans.")
        for name, value, known in (
            ("condition", self.condition, get_args(Condition)),
            ("reset", self.reset, get_args(Reset)),
        ):
            if value not in known:
                raise NetworkError(f"{name} must be {' or '.join(map(repr, known))}, and is {value!r}.")
        if self.scale is not None and np.shape(self.scale) != shape[:1]:
            raise NetworkError(f"scale must be ({shape[0]},), and has shape {np.shape(self.scale)}.")

    @property
    def shape(self) -> Shape:
        """(channels, height, width) or (features,)."""
        return tuple(np.shape(self.threshold))

    def bias_per_step(self, steps: int) -> FloatArray | None:
        """The bias for steps 1..`steps`, shape (steps, channels, 1, ...) to be added to a current."""
        if self.bias is None:
            return None
        table = np.zeros((steps, self.bias.shape[1]), np.float32)
        known = min(steps, len(self.bias))
        table[:known] = self.bias[:known]
        return table.reshape(steps, -1, *[1] * (len(self.shape) - 1))

    def bias_over_window(self, steps: int) -> FloatArray | None:
        """The sum of the bias over steps 1..`steps`, shape (channels, 1, ...) to be added to a sum of currents."""
        if self.bias is None:
            return None
        total = self.bias[:steps].sum(0, dtype=np.float64).astype(np.float32)
        return np.asarray(total.reshape(-1, *[1] * (len(self.shape) - 1)))


def half_potentials(spec: NeuronSpec) -> NeuronSpec:
    """The layer with v_init = theta / 2 (QCFS, Bu et al., ICLR 2022)."""
    return replace(spec, v_init=(spec.threshold / np.float32(2)).astype(np.float32))
