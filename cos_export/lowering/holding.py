"""A layer's window in the plain contract: its potential is held down by B until the window opens, and after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cos_export.network import NeuronSpec
from cos_export.quantisation.intervals import Bound, Interval
from cos_export.quantisation.ranges import LARGEST_SUM
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL

__all__ = ["Charged", "charged", "held"]

_SLACK = 2.0**-12
"""Of what float32 adds, the share that rounding may take away before a layer's window opens, many times over."""


@dataclass(frozen=True)
class Charged:
    """What the window of a layer can bring, by channel.

    Attributes:
        start: v_init with every constant current of the T steps, of the layer's shape.
        largest: The largest potential before the first spike.
        least: The least.
        largest_sum: What no partial sum of a step's current exceeds.
        holding: B: more than what the largest exceeds the threshold by, and 0 where it does not reach it.
    """

    start: NDArray[np.float64]
    largest: Bound
    least: Bound
    largest_sum: Bound
    holding: Bound

    @property
    def fits(self) -> bool:
        """Whether everything, held down or not, stays within 24 bits."""
        lowest = np.minimum(self.least, 0.0) - self.holding
        sums = self.largest_sum + self.holding
        return bool(max(self.largest.max(), -lowest.min()) <= LARGEST_POTENTIAL and sums.max() < LARGEST_SUM)


def charged(
    spec: NeuronSpec, constant: NDArray[np.float64], current: Interval, steps: int, *, integers: bool
) -> Charged:
    """What T steps of its input charge a layer with.

    Args:
        spec: The layer.
        constant: The constant current of each step, of the layer's shape.
        current: What else one step brings, by channel.
        steps: T.
        integers: Whether all numbers but half-integer potentials are integers.
    """
    start = np.asarray(spec.v_init, np.float64) + steps * constant
    bias = spec.bias_over_window(steps)
    if bias is not None:
        start = start + bias
    by_channel = start.reshape(len(start), -1)
    threshold = np.asarray(spec.threshold, np.float64).reshape(by_channel.shape).min(1)
    largest = by_channel.max(1) + steps * np.maximum(current.high, 0.0)
    least = by_channel.min(1) + steps * np.minimum(current.low, 0.0)
    excess = largest - threshold
    if integers:
        holding = np.floor(excess) + 1.0
    else:
        # A power of two, so that taking it away and adding it again rounds what is beside it alone.
        excess = excess + _SLACK * (np.abs(by_channel).max(1) + steps * current.partial + threshold)
        holding = np.exp2(np.ceil(np.log2(np.maximum(excess, np.finfo(np.float32).tiny))))
    return Charged(start, largest, least, current.partial, np.where(excess < 0, 0.0, holding))


def held(spec: NeuronSpec, charge: Charged, opens: int, steps: int, total: int) -> NeuronSpec:
    """The layer in the plain contract, where it fires in the steps opens + 1 .. opens + T and in no other.

    Args:
        spec: The layer.
        charge: What its window brings.
        opens: The step after which the window opens.
        steps: T.
        total: The steps of the whole run.
    """
    down = np.zeros_like(charge.holding) if opens == 0 else charge.holding
    table = np.zeros((total, len(down)), np.float32)
    table[opens] += down
    if opens + steps < total:
        table[opens + steps] -= charge.holding
    start = charge.start - down.reshape(-1, *[1] * (charge.start.ndim - 1))
    return replace(spec, v_init=start.astype(np.float32), bias=table if table.any() else None)
