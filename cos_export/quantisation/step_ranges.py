"""Ranges step by step, for networks whose layers may fire in some steps only.

Where the input is held for some steps and per-step biases hold layers down in others, as in a network that was lowered,
bounds of one step times T would refuse what fits. Here every layer's potential is followed through all steps, and
what it cannot fire does not reach the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.wires import Wires
from cos_export.quantisation.intervals import Interval, carried, completed, input_interval

__all__ = ["Reach", "reaches"]


class Reach(NamedTuple):
    """What can occur in a layer, or at the Output; the fields of `LayerRange` of the same names."""

    current_minimum: int
    current_maximum: int
    largest_sum: int
    potential_minimum: float
    potential_maximum: float
    steps_that_fit: int | None


def reaches(
    network: SpikingNetwork, quantisation: Quantisation, steps: int, start: float, potential: float, total: float
) -> Iterator[tuple[str, Reach]]:
    """Each layer, and the Output, in topological order.

    Args:
        network: Of integers.
        quantisation: Its own.
        steps: T.
        start: What a sample's own initial potentials may be in magnitude; 0 if there are none.
        potential: The largest potential that fits.
        total: The least sum that does not.

    Raises:
        NetworkError: The sums of a node do not fit; the message names it.
    """
    wires: Wires[list[Interval]] = Wires(network)
    for name, parts in wires.walk():
        arriving = [
            Interval(*(np.sum(ends, axis=0) for ends in zip(*at, strict=True))) for at in zip(*parts, strict=True)
        ]
        if not parts:
            images = input_interval(quantisation, network.input_shape[0])
            shown = steps if network.input_steps is None else min(steps, network.input_steps)
            wires[name] = [images] * shown + [_scaled(images, 0.0)] * (steps - shown)
        elif name in network.neurons:
            reach, wires[name] = _neurons(network.neurons[name], arriving, start, potential, total)
            yield name, reach
        elif name == network.output_name:
            wires[name] = arriving
            yield name, _readout(arriving, total)
        else:
            wires[name] = _through(network, name, arriving)
        largest = max(float(interval.partial.max()) for interval in wires[name])
        if largest >= total:
            raise NetworkError(f"Node {name!r}: its sums may reach {largest:,.0f}, and integers are exact below 2^24.")


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(factor * end for end in interval))


def _through(network: SpikingNetwork, name: str, arriving: list[Interval]) -> list[Interval]:
    """What a node that is not a layer makes of every step; equal ones are computed once."""
    node, shape = network.graph.nodes[name], network.shapes[network.predecessors[name][0]]
    known: dict[bytes, Interval] = {}
    intervals = []
    for interval in arriving:
        key = b"".join(end.tobytes() for end in interval)
        if key not in known:
            try:
                known[key] = carried(node, completed(interval), shape)
            except NetworkError as error:
                raise NetworkError(f"Node {name!r}: {error}") from None
        intervals.append(known[key])
    return intervals


def _neurons(
    spec: NeuronSpec, arriving: list[Interval], start: float, potential: float, total: float
) -> tuple[Reach, list[Interval]]:
    """Follows a layer's potentials through the steps: what they may be, and the spikes that it may fire.

    A neuron that fired is left with m - theta, at least 0, or with v_reset; one that did not with m, below theta.
    """
    channels = len(spec.threshold)
    theta, v_init = (np.asarray(part, np.float64).reshape(channels, -1) for part in (spec.threshold, spec.v_init))
    low, high = v_init.min(1), v_init.max(1)
    if start:
        low, high = np.minimum(low, -start), np.maximum(high, start)
    reset = None if spec.v_reset is None else np.asarray(spec.v_reset, np.float64).reshape(channels, -1)
    table = spec.bias_per_step(len(arriving))
    lows, highs, sums, spikes, fits = [], [], [], [], None
    for t, current in enumerate(arriving):
        bias = np.zeros(channels) if table is None else table[t].reshape(channels).astype(np.float64)
        low, high = low + current.low + bias, high + current.high + bias
        may = high >= theta.min(1)
        lows.append(low.min())
        highs.append(high.max())
        sums.append((current.partial + np.abs(bias)).max())
        if fits is None and (max(highs[-1], -lows[-1]) > potential or sums[-1] >= total):
            fits = t
        spikes.append(Interval(np.zeros(channels), may.astype(np.float64), may.astype(np.float64)))
        left, least = high - theta.min(1), np.zeros(channels)
        if reset is not None:
            left, least = reset.max(1), reset.min(1)
        high = np.where(may, np.maximum(np.minimum(high, theta.max(1)), left), high)
        low = np.where(may, np.minimum(low, least), low)
    ends = [current.low.min() for current in arriving], [current.high.max() for current in arriving]
    return Reach(
        int(min(ends[0])), int(max(ends[1])), int(max(sums)), float(min(lows)), float(max(highs)), fits
    ), spikes


def _readout(arriving: list[Interval], limit: float) -> Reach:
    """The sum over the steps so far, in place of a potential."""
    low, high, partial = (np.cumsum(list(ends), axis=0) for ends in zip(*arriving, strict=True))
    beyond = np.flatnonzero(partial.max(1) >= limit)
    return Reach(
        int(min(current.low.min() for current in arriving)),
        int(max(current.high.max() for current in arriving)),
        int(max(current.partial.max() for current in arriving)),
        float(low.min()),
        float(high.max()),
        int(beyond[0]) if len(beyond) else None,
    )
