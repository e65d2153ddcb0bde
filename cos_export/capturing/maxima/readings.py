"""What is read of a map of spikes at every position of another one, and the nodes that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import nir
import numpy as np

from cos_export.capturing.folding import DoubleArray
from cos_export.capturing.sliding import Sliding, sliding
from cos_export.capturing.synapse import Synapse, set_types
from cos_export.network.graph import Shape

__all__ = ["Reading", "pooling_of_one", "reading_synapse"]


@dataclass(frozen=True)
class Reading:
    """One entry of a map for each position, and 0 where that lies outside of the map.

        value[i] = source[first + step * i]        along each axis

    Attributes:
        sources: Nodes of one shape, whose outputs are added.
        sizes: Of their map.
        first: Along each axis, as step.
        step: The distance of the entries of neighbouring positions.
        differences: Whether the sources are neurons over differences.
    """

    sources: tuple[str, ...]
    sizes: Shape
    first: tuple[int, ...]
    step: tuple[int, ...]
    differences: bool = False

    @staticmethod
    def whole(sources: tuple[str, ...], sizes: Shape, *, differences: bool = False) -> Reading:
        """Every entry at its own position."""
        return Reading(sources, sizes, (0,) * len(sizes), (1,) * len(sizes), differences)

    def at(self, axis: int, first: int, step: int) -> Reading:
        """What is read at the positions first, first + step, ... of this reading along an axis."""
        firsts, steps = list(self.first), list(self.step)
        firsts[axis], steps[axis] = firsts[axis] + steps[axis] * first, steps[axis] * step
        return replace(self, first=tuple(firsts), step=tuple(steps))

    def is_whole(self, sizes: Shape) -> bool:
        """Whether it is the map itself, for positions of these sizes."""
        return self == Reading.whole(self.sources, sizes, differences=self.differences)


def _axes(readings: Sequence[Reading], sizes: Shape) -> list[Sliding]:
    """How a kernel reads some readings of the same nodes, axis by axis."""
    first = readings[0]
    return [
        sliding(first.sizes[axis], [reading.first[axis] for reading in readings], first.step[axis], count)
        for axis, count in enumerate(sizes)
    ]


def pooling_of_one(reading: Reading, channels: int, sizes: Shape) -> nir.SumPool2d | None:
    """Windows of one entry that read it, which are no weights; None where there are none."""
    axes = _axes([reading], sizes)
    if len(sizes) != 2 or any(axis.kernel > 1 or axis.padding for axis in axes):
        return None
    stride = np.array([axis.stride for axis in axes])
    node = nir.SumPool2d(np.ones(2, np.int64), stride, np.zeros(2, np.int64))
    set_types(node, (channels, *reading.sizes), (channels, *sizes))
    return node


def reading_synapse(readings: Sequence[tuple[Reading, int]], sizes: Shape, factors: DoubleArray) -> Synapse:
    """The depthwise convolution that adds some readings of the same nodes, each with its sign.

    Args:
        readings: All of the same sources and step.
        sizes: Of the result.
        factors: By channel, (channels,).
    """
    axes = _axes([reading for reading, _ in readings], sizes)
    window = np.zeros([axis.kernel for axis in axes])
    for reading, sign in readings:
        window[tuple(axis.entry(first) for axis, first in zip(axes, reading.first, strict=True))] += sign
    channels = len(factors)
    return Synapse(
        weight=factors.reshape(-1, 1, *[1] * len(sizes)) * window,
        bias=np.zeros(channels),
        input_shape=(channels, *readings[0][0].sizes),
        output_shape=(channels, *sizes),
        stride=tuple(axis.stride for axis in axes),
        padding=tuple(axis.padding for axis in axes),
        dilation=(1,) * len(sizes),
        groups=channels,
    )
