"""Weights in units of what they count: each has the scale of its input channel, which need not be one for all."""

from __future__ import annotations

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.network.node_facts import weight_field

__all__ = ["Scales", "expanded", "largest_weights", "weights_by_input"]

Scales = NDArray[np.float64]
"""One number for each channel, or one for all in an array of one element."""


def expanded(scale: Scales | float, count: int) -> Scales:
    """A scale for each of `count` channels, from one for all or one for each channel before a Flatten."""
    known = np.asarray(scale, np.float64).reshape(-1)
    return np.repeat(known, count // len(known))


def weights_by_input(node: nir.NIRNode, input_scale: Scales | float) -> NDArray[np.float64]:
    """What 1 stands for in the input of each weight, to be multiplied with the weights.

    Args:
        node: The node.
        input_scale: One number for each channel of its input (or of what was flattened to it), or one in all.
    """
    weight, known = np.asarray(getattr(node, weight_field(node))), np.asarray(input_scale, np.float64).reshape(-1)
    if len(known) == 1:
        return known.reshape([1] * weight.ndim)
    if isinstance(node, nir.Scale):
        return expanded(known, len(weight)).reshape(-1, *[1] * (weight.ndim - 1))
    groups = int(getattr(node, "groups", 1))
    columns = expanded(known, groups * weight.shape[1]).reshape(groups, weight.shape[1])
    return np.repeat(columns, len(weight) // groups, 0).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def largest_weights(node: nir.NIRNode, input_scale: Scales | float, *, per_channel: bool) -> Scales:
    """The largest magnitude of a node's weights for one of its integer input, for each output channel or in all."""
    weight = np.abs(np.asarray(getattr(node, weight_field(node)), np.float64)) * weights_by_input(node, input_scale)
    return weight.reshape(len(weight), -1).max(1) if per_channel else np.array([weight.max()])
