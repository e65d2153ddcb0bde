"""Synapses that take sums of very different integers, as several: one for each kind, since scales are shared by sums.

A pre-activation network adds spikes times weights to what its first convolution made of the image, and reads the sum
through the next synapse. One of a spike's weights is worth hundreds of those of a pixel, which counts up to 255, so in
one scale those of the pixels would all be 0. The reader beside a copy of itself, each with one of the two terms,
computes the same, and each term has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import nir
import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.network.node_facts import facts
from cos_export.quantisation.composing import with_composed_stems
from cos_export.quantisation.counting import Scales, largest_weights
from cos_export.quantisation.groups import Group, free_name, groups, in_order
from cos_export.quantisation.splitting import FURTHEST, parts_allowed, widest_scale

__all__ = ["widest_scales", "with_separate_readers"]

_OF_THE_IMAGE = -1
"""The kind of what takes the image, of which 1 is never worth a spike."""

_ROUNDS = 1_000
"""Readers that become several at most; networks that are not far deeper than any known need fewer."""


def widest_scales(
    network: SpikingNetwork, ordered: list[Group], input_scale: float, largest: int
) -> tuple[Mapping[str, float], list[float]]:
    """The scale in which the largest weight of each synapse has all bits, and likewise of each group.

    What a synapse takes is counted in `input_scale`, in spikes, or in the scale of the group that it reads. Those that
    may be split count for 0, for they take any scale.

    Args:
        network: Of float32.
        ordered: Its groups, each after those that its producers read.
        input_scale: What 1 stands for in its input.
        largest: The largest weight that its bits hold.
    """
    nodes = network.graph.nodes
    reads = {name: number for number, group in enumerate(ordered) for name in group.readers}
    of_synapse: dict[str, float] = {}
    of_group: list[float] = []
    for group in ordered:
        taken: dict[str, Scales | float] = {}
        for name in group.producers:
            before, taken[name] = ordered[reads[name]], 1.0
            if before.inner:
                taken[name] = of_group[reads[name]]
            elif network.input_name in {source for source, _ in before.edges}:
                taken[name] = input_scale
        parts = parts_allowed({name: nodes[name] for name in group.producers}, taken)
        scales = {name: largest_weights(nodes[name], taken[name], per_channel=False) / largest for name in parts}
        of_synapse |= {name: float(scale[0]) if parts[name] == 1 else 0.0 for name, scale in scales.items()}
        of_group.append(float(widest_scale(scales, parts)[0]) if scales else 0.0)
    return of_synapse, of_group


def with_separate_readers(network: SpikingNetwork, input_scale: float, largest: int) -> SpikingNetwork:
    """The same network, in which no synapse takes a sum whose terms would need scales more than `FURTHEST` apart.

    What takes a convolution of the image alone becomes a convolution of the image itself, where that can be.

    Args:
        network: Of float32, whose spikes are added through synapses alone.
        input_scale: What 1 stands for in its input.
        largest: The largest weight that its bits hold.
    """
    # A copy is read in its turn: each round settles what lies one node further on.
    for _ in range(_ROUNDS):
        network = with_composed_stems(network)
        ordered = in_order(groups(network))
        scales, _ = widest_scales(network, ordered, input_scale, largest)
        for group in ordered:
            kinds = _kinds(network, group, scales) if group.inner else {}
            reader = next((name for name in group.readers if len(_sources(network, name, kinds)) > 1), None)
            if reader is not None:
                network = _separated(network, reader, _sources(network, reader, kinds))
                break
        else:
            return network
    return network


def _kinds(network: SpikingNetwork, group: Group, scales: Mapping[str, float]) -> dict[str, int]:
    """A number for each node that a group's readers take from, alike where scales are."""
    kinds: dict[str, int] = {}
    number, first = 0, 0.0
    for name in sorted(group.producers, key=lambda name: -scales[name]):
        if network.predecessors[name] == (network.input_name,):
            kinds[name] = _OF_THE_IMAGE
            continue
        if first > FURTHEST * scales[name] > 0:
            number, first = number + 1, scales[name]
        first, kinds[name] = first or scales[name], number if scales[name] > 0 else 0
    for name in group.readers:
        sources = {kinds.get(source, 0) for source in network.predecessors[name]}
        if name not in kinds and len(sources) == 1:
            kinds[name] = sources.pop()
    return kinds


def _sources(network: SpikingNetwork, name: str, kinds: Mapping[str, int]) -> dict[int, list[str]]:
    """What a node takes from, by its kind."""
    sources: dict[int, list[str]] = {}
    for source in network.predecessors[name]:
        sources.setdefault(kinds.get(source, 0), []).append(source)
    return sources


def _separated(network: SpikingNetwork, reader: str, sources: Mapping[int, list[str]]) -> SpikingNetwork:
    nodes, edges = dict(network.graph.nodes), [(str(a), str(b)) for a, b in network.graph.edges]
    onward = [b for a, b in edges if a == reader]
    for taken in list(sources.values())[1:]:
        beside = free_name(nodes, reader)
        nodes[beside] = _without_bias(nodes[reader])
        edges = [(a, beside if b == reader and a in taken else b) for a, b in edges]
        edges += [(beside, target) for target in onward]
    return replace(network, graph=nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False))


def _without_bias(node: nir.NIRNode) -> nir.NIRNode:
    field = facts(node).bias
    return with_attributes(node) if field is None else with_attributes(node, **{field: 0 * np.asarray(node.bias)})
