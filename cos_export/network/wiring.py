"""Synapses that are wiring: they pick entries of what they take, or compare them; nobody learnt their weights."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.network.graph import convolution

__all__ = ["is_wiring", "picks_entries"]


def picks_entries(node: nir.NIRNode) -> bool:
    """Whether each output is one entry of the same channel of the input: a depthwise kernel of one 1 and zeros.

    A SumPool2d over windows of one entry does the same where the first entry is picked. What carries all entries on
    one by one is not meant: it stands where a synapse is wanted.
    """
    if not is_wiring(node):
        return False
    kernels, stride = _kernels(node), convolution(node).stride
    everything = kernels.shape[1] == 1 and all(step == 1 for step in stride)
    return not everything and bool((kernels.sum(1) == 1).all() and (np.abs(kernels).sum(1) == 1).all())


def is_wiring(node: nir.NIRNode) -> bool:
    """Whether a synapse is depthwise, of weights 0, 1 and -1 with at most one of each sign for an output, and no bias.

    A max pooling is made of such synapses and of neurons (`cos_export.capturing.maxima`).
    """
    if not isinstance(node, nir.Conv1d | nir.Conv2d) or np.any(node.bias):
        return False
    weight, groups = np.asarray(node.weight), convolution(node).groups
    if weight.shape[1] != 1 or weight.shape[0] != groups:
        return False
    kernels = _kernels(node)
    return bool(
        np.isin(kernels, (-1, 0, 1)).all() and (kernels == 1).sum(1).max() <= 1 and (kernels == -1).sum(1).max() <= 1
    )


def _kernels(node: nir.NIRNode) -> NDArray[Any]:
    weight = np.asarray(node.weight)
    return weight.reshape(len(weight), -1)
