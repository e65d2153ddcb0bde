"""Currents that two layers take with opposite signs, the second behind a synapse that turns the sign.

In integers that synapse has one weight k < 0 for each channel. The scale of the second layer is 1 / |k| of the
first's, up to the rounding of its threshold to an integer, so its current is hardly changed. Where scales are not free
to be so (one for each channel, powers of two, even weights) the second layer gets copies of the synapses instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import nir
import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.network.node_facts import facts, weight_field
from cos_export.network.reparametrisation import with_bias
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
    """The same network, in which what turns the sign of what synapses give is copies of them with the sign turned.

    Its bias becomes that of the first copy that can have one; where none can, it stays.
    """
    nodes, edges = dict(network.graph.nodes), [(str(a), str(b)) for a, b in network.graph.edges]
    for name in network.order:
        sources = network.predecessors[name]
        if not turns_sign(nodes[name]) or not all(has_own_scale(network.graph.nodes[source]) for source in sources):
            continue
        bias = np.asarray(getattr(nodes[name], "bias", 0.0), np.float64)
        copies = [_negative(network.graph.nodes[source]) for source in sources]
        if bias.any():
            number = next((i for i, node in enumerate(copies) if _takes_bias(node)), None)
            if number is None:
                continue
            copies[number] = with_bias(copies[number], bias)
        targets = [b for a, b in edges if a == name]
        edges = [edge for edge in edges if name not in edge]
        del nodes[name]
        for source, node in zip(sources, copies, strict=True):
            copy = free_name(nodes, name)
            nodes[copy] = node
            edges += [(before, copy) for before in network.predecessors[source]]
            edges += [(copy, target) for target in targets]
    return replace(network, graph=nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False))


def _negative(node: nir.NIRNode) -> nir.NIRNode:
    """The negative of what `node` gives."""
    fields = [weight_field(node), *([bias] if (bias := facts(node).bias) is not None else [])]
    return with_attributes(node, **{field: -np.asarray(getattr(node, field)) for field in fields})


def _takes_bias(node: nir.NIRNode) -> bool:
    return facts(node).bias is not None or isinstance(node, nir.Linear)
