"""Max pooling as a tournament of differences.

Spike counts n_a and n_b of one layer are compared by a neuron of threshold 1 that starts at 1/2, with weights 1 and -1:

    d = clip(floor(n_b - n_a + 1/2), 0, T) = max(n_b - n_a, 0)        max(n_a, n_b) = n_a + d

under the layer-wise schedule. A window is split in two, and each of these again (`splits`); first along the last axis,
then along the one before it, so that rows share the maxima along them. The result is not a layer: it is the sum of the
entry that came first and of one d for each round, which the next synapse takes as it takes any sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np

from cos_export.capturing.builder import Builder
from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray
from cos_export.capturing.maxima.readings import Reading, pooling_of_one, reading_synapse
from cos_export.capturing.maxima.splits import Grid, best_split, neurons_along
from cos_export.capturing.spike_counts import SpikeCount
from cos_export.capturing.values import Term, Value, pack, vector
from cos_export.network.graph import Shape

__all__ = ["Windows", "pooled"]


@dataclass(frozen=True)
class Windows:
    """How windows slide, each entry one number per spatial axis.

    Attributes:
        kernel: Entries of a window.
        stride: The distance of two windows.
        padding: On the lower side; on the upper one as much as the last window takes.
        dilation: The distance of two entries of a window.
        count: How many windows there are.
    """

    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    count: Shape

    def grid(self, axis: int) -> Grid:
        """Where they start along an axis."""
        return Grid(-self.padding[axis], self.stride[axis], self.count[axis])

    def padded(self, sizes: Shape) -> bool:
        """Whether one reaches beyond a map of these sizes."""
        ends = [
            s * (count - 1) - p + d * (k - 1)
            for k, s, p, d, count in zip(self.kernel, self.stride, self.padding, self.dilation, self.count, strict=True)
        ]
        return any(self.padding) or any(end >= size for end, size in zip(ends, sizes, strict=True))


def pooled(builder: Builder, name: str, value: Value, windows: Windows, direction: int) -> Value:
    """The maximum of a value over each window, or the minimum.

    Args:
        builder: Gets the neurons.
        name: What they are called after.
        value: (channels, ...), each channel a spike count times a number.
        windows: Over its spatial axes.
        direction: 1 for the maximum, -1 for the minimum.

    Raises:
        Unsupported: The value is another one, or padding would count.
    """
    shape = (value.channels, *windows.count)
    if builder.is_unknown(value):
        return builder.unknown(shape)
    terms: list[Term] = []
    for count, term in builder.counts.of(value):
        sign = _signs(term, direction)
        if windows.padded(value.spatial) and (sign < 0).any():
            raise Unsupported(
                "its padding counts as 0, and it takes the least of spike counts in some channels",
                "leave the padding out, or batch norms with negative weights between the pooling and its activation",
            )
        tournament = _Tournament(builder, name, sign, count)
        readings = tournament.pooled([Reading.whole(count.sources, value.spatial)], windows)
        terms += tournament.terms(readings, term, windows.count, direction)
    return Value(shape, ()).of(terms)


def _signs(term: Term, direction: int) -> DoubleArray:
    """Of each channel of the term's source: 1 where the largest count is looked for, -1 where the least is."""
    signs = np.ones(term.width)
    picks, required = term.picks(), np.where(vector(term.scale, term.channels) < 0, -direction, direction)
    used = picks >= 0
    signs[picks[used]] = required[used]
    if (signs[picks[used]] != required[used]).any():
        raise Unsupported(
            "it takes the maximum of a channel and the minimum of the same channel",
            "pool before the channels are copied",
        )
    return signs


def _cheapest_order(windows: Windows, sizes: Shape) -> tuple[int, ...]:
    """The order of the axes that takes the fewest neurons: each one's are as many as the others have lines."""

    def neurons(order: tuple[int, ...]) -> int:
        total, now = 0, list(sizes)
        for axis in order:
            now[axis] = 1
            total += prod(now) * neurons_along(windows.kernel[axis], windows.grid(axis), windows.dilation[axis])
            now[axis] = windows.count[axis]
        return total

    return min(permutations(reversed(range(len(sizes)))), key=neurons)


@dataclass(frozen=True)
class _Tournament:
    """The rounds of one pooling over the spike counts of one layer.

    Attributes:
        builder: Gets the nodes.
        name: What they are called after.
        sign: Of each channel, 1 for the maximum.
        count: What is pooled.
    """

    builder: Builder
    name: str
    sign: DoubleArray
    count: SpikeCount

    def pooled(self, readings: list[Reading], windows: Windows) -> list[Reading]:
        """The maxima over windows, as readings that are added."""
        sizes = list(self.count.sizes)
        for axis in _cheapest_order(windows, self.count.sizes):
            length, grid, dilation = windows.kernel[axis], windows.grid(axis), windows.dilation[axis]
            readings = self._window(axis, tuple(sizes), readings, length, grid, dilation)
            sizes[axis] = grid.count
        return readings

    def _window(
        self, axis: int, sizes: Shape, readings: list[Reading], length: int, grid: Grid, dilation: int
    ) -> list[Reading]:
        """The maximum over windows of `length` entries that start on `grid`, as readings that are added."""
        if length == 1:
            return [reading.at(axis, grid.first, grid.step) for reading in readings]
        split = best_split(length, grid, dilation)
        distance = dilation * (length - split.end)
        if split.shared:
            finer = grid.refined(distance)
            shared = self._window(axis, sizes, readings, split.start, finer, dilation)
            step = grid.step // finer.step if grid.count > 1 else 1
            start = [reading.at(axis, 0, step) for reading in shared]
            end = [reading.at(axis, distance // finer.step, step) for reading in shared]
        else:
            start = self._window(axis, sizes, readings, split.start, grid, dilation)
            end = self._window(axis, sizes, readings, split.end, grid.moved(distance), dilation)
        if abs(end[0].first[axis]) < abs(start[0].first[axis]):
            # What is read from entry 0 on needs no weights.
            start, end = end, start
        return [*start, self._excess(start, end, (*sizes[:axis], grid.count, *sizes[axis + 1 :]))]

    def _excess(self, start: list[Reading], end: list[Reading], sizes: Shape) -> Reading:
        """The neurons that fire what `end` has more than `start`."""
        by_source: dict[tuple[str, ...], list[tuple[Reading, int]]] = {}
        for reading, factor in (*((r, 1) for r in end), *((r, -1) for r in start)):
            by_source.setdefault(reading.sources, []).append((reading, factor))
        terms = []
        for sources, signed in by_source.items():
            factors = np.ones_like(self.sign) if signed[0][0].differences else self.sign
            synapse = reading_synapse(signed, sizes, factors)
            terms.append(Term(self.builder.add(f"{self.name}_compared", synapse, sources), len(self.sign)))
        current = Value((len(self.sign), *sizes), tuple(terms))
        excess, _ = self.builder.neurons(
            f"{self.name}_excess", current, 1.0, self.count.levels, unbounded=self.count.unbounded
        )
        return Reading.whole((excess,), sizes, differences=True)

    def terms(self, readings: list[Reading], term: Term, sizes: Shape, direction: int) -> list[Term]:
        """The readings as what `term` is of its source."""
        names = [(reading, name) for reading in readings for name in self._read(reading, sizes)]
        if (self.sign > 0).all():
            self.builder.counts.add(
                SpikeCount(tuple(name for _, name in names), sizes, self.count.levels, self.count.unbounded)
            )
        size = np.abs(vector(term.scale, term.channels))
        above = pack(direction * size)
        return [
            Term(name, term.width, above if reading.differences else term.scale, term.index) for reading, name in names
        ]

    def _read(self, reading: Reading, sizes: Shape) -> tuple[str, ...]:
        """The nodes that send a reading."""
        if reading.is_whole(sizes):
            return reading.sources
        channels, preferred = len(self.sign), f"{self.name}_picked"
        node = pooling_of_one(reading, channels, sizes)
        if node is None:
            node = reading_synapse([(reading, 1)], sizes, np.ones(channels))
        return (self.builder.add(preferred, node, reading.sources),)
