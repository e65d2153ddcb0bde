"""Where the grid of integers is coarser than what a layer has to tell apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts, weight_field

__all__ = ["coarse_layers"]

_LISTED = 4
"""Channels that a line names."""

_FIX = "Per-channel scales (--quantisation per-channel, quantise(..., per_channel=True)) give each channel its own."

_READOUT_FIX = (
    "The classes of a readout share one scale: check that weight, and clip it before the network is quantised."
)


_COARSE = 1 / 16
"""Of how much a current varies: what weights are off by at most whose largest is 8 in integers, which takes 4 bits."""

_CURRENT_FIX = (
    "Where synapses follow each other without an activation their integers share 24 bits: put an activation between "
    "them, make the layer narrower or T smaller, or export float32."
)


def coarse_layers(before: SpikingNetwork, after: SpikingNetwork, steps: int, errors: Mapping[str, float]) -> list[str]:
    """A line for each layer or synapse whose resolution in integers is below one level, naming its channels.

    With u what 1 stands for in a channel's potentials and u_in in its synapse's input, a channel is coarse where

        theta / u < L                  one integer is more than one level of the activation (L levels, T for a ReLU)
        0 < max |w| u_in / u < 1/2     the largest of its weights is less than half an integer: all became 0

    and a layer is where what rounding changes of its current is more than 1/16 of how much that varies.

    Args:
        before: The network in float32.
        after: The same in integers.
        steps: T.
        errors: Of the current of each layer, and of the readout, relative (`current_errors`).
    """
    lines = [_off(after, name, error) for name, error in errors.items() if error > _COARSE]
    for name, spec in after.neurons.items():
        levels = spec.levels or steps
        counts = spec.threshold.reshape(len(spec.threshold), -1).min(1)
        coarse = np.flatnonzero(counts < levels)
        if len(coarse):
            lines.append(
                f"Layer {name!r}: the threshold of {_channels(coarse, len(counts))} is {counts[coarse].min():.0f} in "
                f"integers, for {levels} levels of its activation: one integer is more than one level. {_FIX}"
            )
    for name in before.order:
        node = before.graph.nodes[name]
        if not facts(node).weighted or name not in after.graph.nodes:
            continue
        old, new = (_largest(n.graph.nodes[name]) for n in (before, after))
        if not old.any():
            lines.append(f"Node {name!r}: all of its weights are 0, so what it gives does not depend on the images.")
        elif len(old) == len(new) and (gone := np.flatnonzero((old > 0) & (new == 0))).size:
            lines.append(
                f"Node {name!r}: all weights of {_channels(gone, len(old))} became 0 in integers, for they are below "
                f"half the scale: the largest weight of the node is {old.max() / old[gone].max():,.0f} times theirs. "
                f"{_READOUT_FIX if name in after.predecessors[after.output_name] else _FIX}"
            )
    return lines


def _off(network: SpikingNetwork, name: str, error: float) -> str:
    what = "The readout" if name == network.output_name else f"Layer {name!r}"
    largest = {node: int(_largest(network.graph.nodes[node]).max()) for node in _synapses(network, name)}
    fewest = sorted(largest, key=lambda node: largest[node])[:_LISTED]
    return (
        f"{what}: its current in integers is off by {100 * error:.0f} % of how much it varies over the images. The "
        f"weights of its synapses reach {', '.join(f'{largest[node]} in {node!r}' for node in fewest)}. {_CURRENT_FIX}"
    )


def _synapses(network: SpikingNetwork, name: str) -> list[str]:
    """The synapses between a layer and the neurons before it."""
    found: list[str] = []
    behind = list(network.predecessors[name])
    while behind:
        source = behind.pop()
        if source in found or source in network.neurons or source == network.input_name:
            continue
        found.append(source)
        behind += network.predecessors[source]
    return [source for source in found if facts(network.graph.nodes[source]).weighted]


def _largest(node: object) -> NDArray[np.float64]:
    """The largest magnitude of the weights of each channel."""
    weight = np.abs(np.asarray(getattr(node, weight_field(node)), np.float64))
    largest: NDArray[np.float64] = weight.reshape(len(weight), -1).max(1)
    return largest


def _channels(chosen: NDArray[np.int64], count: int) -> str:
    if len(chosen) == count:
        return "every channel" if count > 1 else "its channel"
    some = ", ".join(str(int(number)) for number in chosen[:_LISTED])
    more = f" and {len(chosen) - _LISTED} more" if len(chosen) > _LISTED else ""
    return f"channel {some}{more} of {count}"
