"""Scales of wires between synapses alone, where two roundings share what 24 bits leave.

A wire from one synapse to the next has a scale for each channel, for what takes it multiplies with it by channel. The
finer it is, the better the weights before it are told apart, and the coarser those behind: they are counted in
multiples of it, in a scale that the ranges or the bits of what comes behind decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nir
import numpy as np
from torch import Tensor

from cos_export.network import SpikingNetwork
from cos_export.network.graph import Shape
from cos_export.network.node_facts import weight_field
from cos_export.quantisation.counting import Scales, expanded, largest_weights
from cos_export.quantisation.groups import Group, has_own_scale
from cos_export.quantisation.scales import Rounding, rounded_synapse, squared_error
from cos_export.quantisation.separating import widest_scales
from cos_export.quantisation.splitting import parts_allowed, widest_scale

__all__ = ["Demand", "base_channels", "demands", "inner_scale"]

_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 40, 51, 64, 80, 101, 160, 212, 300)
"""What the largest weight of a channel may become, beside the largest that its bits hold; what is more is clipped."""

_CREST = 3.0
"""How many times the root of their mean square the largest of a channel's weights is, about."""


@dataclass(frozen=True)
class Demand:
    """What one reader of a wire leads to.

    Attributes:
        counts: How many integers of the neurons (or of the readout) behind it 1 on each channel is, at most.
        depth: Synapses from the wire to them.
    """

    counts: Scales
    depth: int

    def behind(self, scale: Scales) -> Scales:
        """The largest weights behind a wire of some scale, where synapses in a row share alike: (counts u)^(1/k)."""
        tiny = float(np.finfo(np.float64).tiny)
        return np.asarray(np.maximum(self.counts * scale, tiny) ** (1.0 / self.depth))


def demands(
    network: SpikingNetwork, ordered: Sequence[Group], input_scale: float, finest: Mapping[str, Scales], largest: int
) -> dict[int, tuple[Demand, ...]]:
    """What each reader of each group between synapses leads to, by the group's place in `ordered`.

    Args:
        network: Of float32.
        ordered: Its groups, each after those that its producers read.
        input_scale: What 1 stands for in its input.
        finest: The least scale of each node's input in which its sums fit, by channel.
        largest: The largest weight that its bits hold.
    """
    nodes = network.graph.nodes
    of_producer = {name: number for number, group in enumerate(ordered) for name in group.producers}
    _, widest = widest_scales(network, list(ordered), input_scale, largest)
    found: dict[int, tuple[Demand, ...]] = {}
    for number in range(len(ordered) - 1, -1, -1):
        group = ordered[number]
        if not group.inner:
            continue
        channels, known = base_channels(network, group), []
        for name in group.readers:
            if not has_own_scale(nodes[name]):
                continue
            behind = of_producer[name]
            if ordered[behind].inner:
                # Of several ways on, the one that leaves least.
                unit, further = min(
                    ((d.counts, d.depth) for d in found[behind]), key=lambda d: d[0].max() ** (1 / d[1])
                )
            else:
                scale = max(widest[behind], *(float(np.max(finest[one])) for one in ordered[behind].readers))
                unit, further = np.array([1.0 / scale if scale > 0 else 0.0]), 0
            known.append(Demand(_columns(nodes[name], unit).reshape(channels, -1).max(1), 1 + further))
        found[number] = tuple(known)
    return found


def base_channels(network: SpikingNetwork, group: Group) -> int:
    """Channels of a group's wires before any Flatten, which makes each several; 1 if they do not go together."""
    counts = {network.shapes[network.predecessors[name][0]][0] for name in group.readers}
    counts |= {network.shapes[name][0] for name in group.producers}
    least = min(counts)
    return 1 if any(count % least for count in counts) else least


def _columns(node: nir.NIRNode, unit: Scales) -> Scales:
    """By input channel, the largest of a node's weights, each times what its output channel counts."""
    weight = np.abs(np.asarray(getattr(node, weight_field(node)), np.float64))
    weight = weight * expanded(unit, len(weight)).reshape(-1, *[1] * (weight.ndim - 1))
    if isinstance(node, nir.Scale):
        return np.asarray(weight.reshape(len(weight), -1).max(1))
    groups = int(getattr(node, "groups", 1))
    return np.asarray(weight.reshape(groups, len(weight) // groups, weight.shape[1], -1).max((1, 3)).ravel())


def inner_scale(
    nodes: Mapping[str, nir.NIRNode],
    input_scales: Mapping[str, Scales],
    inputs: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    wire: Tensor,
    readers: Sequence[Demand],
    rounding: Rounding,
    finest: Scales,
) -> Scales:
    """The scale of each channel between synapses that loses least of what the wire carries.

    With n the largest weight of a channel in integers, so u = max |W| u_in / n, and k synapses from it to the neurons
    behind a reader, whose largest weights share `counts` u, n' = (counts u)^(1/k) each, it minimises

        mean over samples and places of (W_int x u - W x + b_int u - b)^2
            + sum over readers of k variance(W x) crest^2 / 12 max(1 / n'^2, n'^2 / M^4)

    the error that is made before the wire, as it is over the images, and that behind it, as it is to be expected: n' is
    at most M, the largest that the bits hold, and if it would have to be more, then what else reaches the neurons has
    to be counted as much coarser.

    Args:
        nodes: Weighted nodes whose outputs are added, by name.
        input_scales: What 1 stands for in the input of each, by channel or in all.
        inputs: What arrives at each, (samples, ...), not yet in integers.
        shapes: Of what each gives.
        wire: The sum of what they give, or what a pooling or Flatten makes of it, (samples, ...).
        readers: What is behind.
        rounding: Of weights and scales.
        finest: The least scale in which the sums fit, by channel.

    Returns:
        One number for each channel, or one in all where a synapse may be split into several.
    """
    parts, channels = parts_allowed(nodes, input_scales), len(finest)
    single = any(count > 1 for count in parts.values())
    rows = {
        name: largest_weights(node, input_scales[name], per_channel=True).reshape(channels, -1).max(1)
        for name, node in nodes.items()
    }
    if single:
        rows = {name: np.full(channels, row.max()) for name, row in rows.items()}
    largest = widest_scale(rows, parts)
    values = wire.double().reshape(len(wire), channels, -1)
    spread = np.asarray(values.transpose(0, 1).flatten(1).var(1, unbiased=False).cpu().numpy())
    floor = np.maximum(finest, np.finfo(np.float32).tiny)
    counts = np.unique([*_COUNTS, rounding.largest_weight])
    counts = np.unique(2 * np.ceil(counts / 2)) if rounding.even_weights else counts
    best, least = np.zeros(channels), np.full(channels, np.inf)
    for count in counts:
        scale = rounding.scale(np.where(largest > 0, largest, 1.0) / count, None, floor)
        if single:
            scale = np.full(channels, scale.max())
        before = np.zeros(channels)
        for name, node in nodes.items():
            whole = rounded_synapse(node, input_scales[name], scale, rounding, parts[name])
            off = squared_error(node, whole, input_scales[name], scale, inputs[name])
            before += off.reshape(channels, -1).sum(1) * channels / np.prod(shapes[name])
        total = before + spread * sum(_expected(reader, scale, rounding.largest_weight) for reader in readers)
        if single:
            importance = np.max([reader.counts for reader in readers], axis=0)
            total = np.full(channels, float((total * importance**2).sum()))
        better = total < least
        best, least = np.where(better, scale, best), np.where(better, total, least)
    return best[:1] if single else best


def _expected(reader: Demand, scale: Scales, largest: int) -> Scales:
    """The error behind a wire that is to be expected, squared, relative to the variance of each channel.

    Where all weights behind a channel are 0 there is none.
    """
    share = reader.behind(scale)
    found = np.maximum(1 / np.where(reader.counts > 0, share, 1.0) ** 2, share**2 / float(largest) ** 4)
    return np.asarray(reader.depth * _CREST**2 / 12 * np.where(reader.counts > 0, found, 0.0))
