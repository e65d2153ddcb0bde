"""What the wires of a network of integers can carry at most, from one node to the next."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import Quantisation
from cos_export.network.graph import Shape, pooling
from cos_export.network.node_facts import bias_of

__all__ = ["Bound", "Interval", "carried", "completed", "input_interval"]

Bound = NDArray[np.float64]
"""One number for each channel."""

_AT_ONCE = 2**20
"""Weights that are in float64 at once: 8 MiB, where those of the largest layer of a VGG-16 would take 0.8 GB."""


class Interval(NamedTuple):
    """What a wire can carry, by channel, and how large a partial sum of it can be."""

    low: Bound
    high: Bound
    partial: Bound


def input_interval(quantisation: Quantisation, channels: int) -> Interval:
    """What the Input sends, by channel."""
    low, high = float(quantisation.input_minimum), float(quantisation.input_maximum)
    return Interval(np.full(channels, low), np.full(channels, high), np.full(channels, max(-low, high)))


def completed(wire: Interval) -> Interval:
    """The same wire as its reader finds it, whose sums are of complete numbers: none is larger than the ends."""
    return Interval(wire.low, wire.high, np.maximum(np.maximum(-wire.low, wire.high), 0.0))


@singledispatch
def carried(node: nir.NIRNode, arriving: Interval, shape: Shape) -> Interval:
    """What a node makes of an interval for each channel of what it takes, of `shape`.

    Raises:
        NetworkError: The node may make fractions of integers.
    """
    raise NetworkError(f"a node of type {type(node).__name__} does not keep integers.")


@carried.register
def _(node: nir.Output, arriving: Interval, shape: Shape) -> Interval:
    return arriving


@carried.register
def _(node: nir.Flatten, arriving: Interval, shape: Shape) -> Interval:
    first, last = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
    times = int(np.prod(shape[1 : last + 1])) if first == 0 else 1
    return Interval(*(np.repeat(bound, times) for bound in arriving))


@carried.register
def _(node: nir.SumPool2d, arriving: Interval, shape: Shape) -> Interval:
    size = int(np.prod(pooling(node).kernel))
    # A window at a padded border sums fewer.
    return Interval(
        size * np.minimum(arriving.low, 0.0), size * np.maximum(arriving.high, 0.0), size * arriving.partial
    )


@carried.register
def _(node: nir.Scale, arriving: Interval, shape: Shape) -> Interval:
    factors = np.asarray(node.scale, np.float64).reshape(shape[0], -1)
    ends = np.stack([factors * arriving.low[:, None], factors * arriving.high[:, None]])
    return Interval(ends.min((0, 2)), ends.max((0, 2)), np.abs(factors).max(1) * arriving.partial)


@carried.register(nir.Affine)
@carried.register(nir.Linear)
@carried.register(nir.Conv1d)
@carried.register(nir.Conv2d)
def _(node: nir.Affine | nir.Linear | nir.Conv1d | nir.Conv2d, arriving: Interval, shape: Shape) -> Interval:
    groups, outputs = int(getattr(node, "groups", 1)), len(node.weight)
    # At a padded border some terms are missing: each may also be 0.
    low, high, partial = (
        bound.reshape(groups, -1)
        for bound in (np.minimum(arriving.low, 0.0), np.maximum(arriving.high, 0.0), arriving.partial)
    )
    known = bias_of(node)
    bias = np.broadcast_to(0.0 if known is None else known.astype(np.float64), (outputs,))
    bounds: list[Interval] = []
    size = max(1, _AT_ONCE // int(np.prod(np.shape(node.weight)[1:])))
    for start in range(0, outputs, size):
        rows = slice(start, min(start + size, outputs))
        taps = np.asarray(node.weight[rows], np.float64).reshape(rows.stop - start, node.weight.shape[1], -1)
        up, down = np.maximum(taps, 0.0).sum(-1), np.minimum(taps, 0.0).sum(-1)
        of = np.arange(start, rows.stop) * groups // outputs if groups > 1 else slice(None)
        bounds.append(
            Interval(
                (up * low[of] + down * high[of]).sum(-1) + bias[rows],
                (up * high[of] + down * low[of]).sum(-1) + bias[rows],
                (np.abs(taps).sum(-1) * partial[of]).sum(-1) + np.abs(bias[rows]),
            )
        )
    return Interval(*map(np.concatenate, zip(*bounds, strict=True)))
