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
from cos_export.quantisation.counting import Scales, largest_weights

__all__ = [
    "FURTHEST",
    "MOST_PARTS",
    "SMALLEST_FRACTION",
    "parts_allowed",
    "split",
    "widest_scale",
]

SMALLEST_FRACTION = 0.3
"""Of the scale in which the largest weight is the largest that its bits hold, the least that is tried."""

MOST_PARTS = 16
"""Of one synapse."""


FURTHEST = 4.0
"""How many times the scale of a weight may be that of another whose sum it is in: that costs the other two bits."""


def parts_allowed(nodes: Mapping[str, nir.NIRNode], input_scales: Mapping[str, Scales | float]) -> dict[str, int]:
    """How many parts each of the nodes whose outputs are added may have: more than one if that is cheap.

    It is where each output of a node takes one input, and outputs of another node take more, or where the largest
    weights are more than `FURTHEST` apart.

    Args:
        nodes: By name.
        input_scales: What 1 stands for in the input of each.
    """
    cheap = {name: _elementwise(node) for name, node in nodes.items()}
    largest = [float(largest_weights(nodes[name], input_scales[name], per_channel=False)[0]) for name in nodes]
    least = min((weight for weight in largest if weight > 0), default=0.0)
    apart = max(largest, default=0.0) > FURTHEST * least
    return {name: MOST_PARTS if cheap[name] and (apart or not all(cheap.values())) else 1 for name in nodes}


def widest_scale(scales: Mapping[str, Scales], parts: Mapping[str, int]) -> Scales:
    """The scale of a sum, from those in which the largest weight of each term has all bits; 0 counts for none.

    Where terms may be split it is that of the others, or of the least, as far as the parts allow.
    """
    alone = [scale for name, scale in scales.items() if parts[name] == 1]
    several = [scale for name, scale in scales.items() if parts[name] > 1]
    least = np.max(alone, axis=0) if alone else np.zeros_like(next(iter(scales.values())))
    if several and not np.any(least):
        positive = np.where(np.asarray(several) > 0, several, np.inf).min(0)
        least = np.where(np.isfinite(positive), positive, 0.0)
    return np.asarray(np.max([least, *(scale / (SMALLEST_FRACTION * MOST_PARTS) for scale in several)], axis=0))


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
