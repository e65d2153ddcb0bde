"""Synapses whose weight takes more bits than a synapse has: as many synapses side by side as hold it together.

A residual's identity path has one weight per neuron, the threshold of the layer it comes from, and that is often ten
times the largest weight of the convolution beside it. In 8 bits with one scale for both, the convolution would be left
with four. Its sum with itself costs next to nothing and keeps its weight whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import nir
import numpy as np

from cos_export.network.graph import with_attributes
from cos_export.network.node_facts import facts, weight_field
from cos_export.numerics import signed_range

__all__ = ["MOST_PARTS", "parts_allowed", "split"]

MOST_PARTS = 16
"""Of one synapse."""


def parts_allowed(nodes: Mapping[str, nir.NIRNode]) -> dict[str, int]:
    """How many parts each of the nodes whose outputs are added may have: more than one if that is cheap.

    It is where each output of a node takes one input, and outputs of another node take more.
    """
    cheap = {name: _elementwise(node) for name, node in nodes.items()}
    return {name: MOST_PARTS if cheap[name] and not all(cheap.values()) else 1 for name in nodes}


def _elementwise(node: nir.NIRNode) -> bool:
    if facts(node).terms == 1:
        return True
    weight = np.asarray(getattr(node, weight_field(node)))
    return int(np.prod(weight.shape[2:])) == 1 and bool(
        (np.count_nonzero(weight.reshape(len(weight), -1), 1) <= 1).all()
    )


def split(node: nir.NIRNode, *, bits: int, even: bool) -> list[nir.NIRNode]:
    """Nodes of so many bits whose outputs add up to that of a node of larger integers; the first has the bias.

    With k nodes, weight j = 0..k-1 is floor((w + j) / k), or twice that of w / 2 if weights are even.
    """
    field, step = weight_field(node), 2 if even else 1
    weight = np.asarray(getattr(node, field), np.float64) / step
    count = max(1, int(np.ceil(np.abs(weight).max() / (signed_range(bits)[1] // step))))
    parts = []
    for number in range(count):
        part = with_attributes(node, **{field: (step * np.floor((weight + number) / count)).astype(np.float32)})
        if number > 0 and facts(node).bias is not None:
            part = with_attributes(part, bias=np.zeros_like(node.bias))
        parts.append(part)
    return parts
