"""Currents that two layers take with opposite signs, the second behind a synapse that turns the sign.

In integers that synapse has one weight k < 0 for each channel. The scale of the second layer is 1 / |k| of the
first's, up to the rounding of its threshold to an integer, so its current is hardly changed. Where scales are not free
to be so (one for each channel, powers of two, even weights) the second layer gets copies of the synapses instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.network import SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.network.node_facts import facts, weight_field
from cos_export.network.wiring import turns_sign
from cos_export.quantisation.counting import Scales
from cos_export.quantisation.groups import free_name, has_own_scale

__all__ = ["multiples", "with_copies_of_mirrored"]

_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
"""Which weights are tried for a synapse of one magnitude."""


def multiples(largest: Mapping[str, Scales], nodes: Mapping[str, nir.NIRNode], most: int) -> list[Scales]:
    """Scales in which the weights of a node that stands alone, and has one magnitude, are integers; else none.

    Args:
        largest: The largest weight of each node, in what its input counts.
        nodes: The nodes whose outputs are added.
        most: The largest weight that its bits hold.
    """
    if len(nodes) != 1:
        return []
    ((name, node),) = nodes.items()
    weight = np.abs(np.asarray(getattr(node, weight_field(node))))
    if len(np.unique(weight[weight > 0])) != 1:
        return []
    return [largest[name] / count for count in (*_COUNTS, most) if count <= most]


def with_copies_of_mirrored(network: SpikingNetwork) -> SpikingNetwork:
    """The same network, in which what turns the sign of what synapses give is copies of them with the sign turned."""
    nodes, edges = dict(network.graph.nodes), [(str(a), str(b)) for a, b in network.graph.edges]
    for name in network.order:
        sources = network.predecessors[name]
        if not turns_sign(nodes[name]) or not all(has_own_scale(network.graph.nodes[source]) for source in sources):
            continue
        targets = [b for a, b in edges if a == name]
        edges = [edge for edge in edges if name not in edge]
        bias = np.asarray(getattr(nodes.pop(name), "bias", 0.0))
        for source in sources:
            copy = free_name(nodes, name)
            nodes[copy], bias = _negative(network.graph.nodes[source], bias), 0 * bias
            edges += [(before, copy) for before in network.predecessors[source]]
            edges += [(copy, target) for target in targets]
    return replace(network, graph=nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False))


def _negative(node: nir.NIRNode, bias: NDArray[Any]) -> nir.NIRNode:
    """`bias` minus what `node` gives."""
    known = facts(node)
    values = {weight_field(node): -np.asarray(getattr(node, weight_field(node)))}
    if known.bias is not None:
        values[known.bias] = bias - np.asarray(getattr(node, known.bias))
    return with_attributes(node, **values)
