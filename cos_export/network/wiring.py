"""Synapses that are wiring: they pick entries of what they take, or compare them; nobody learnt their weights."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.network.graph import convolution

__all__ = ["is_wiring", "picks_entries", "turns_sign"]


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


def turns_sign(node: nir.NIRNode) -> bool:
    """Whether each output is the input of its own channel and place multiplied by -1, up to a bias.

    It stands between a current and neurons that take its negative, those of an activation's lower side.
    """
    if not isinstance(node, nir.Conv1d | nir.Conv2d | nir.Affine):
        return False
    weight = np.asarray(node.weight)
    if not isinstance(node, nir.Affine):
        window = convolution(node)
        if weight[0, 0].size != 1 or any(step != 1 for step in window.stride) or np.any(window.padding):
            return False
        if weight.shape[1] == 1 and window.groups == len(weight):
            return bool((weight == -1).all())
    return weight.shape[0] == weight.shape[1] and bool((weight.reshape(weight.shape[:2]) == -np.eye(len(weight))).all())


def _kernels(node: nir.NIRNode) -> NDArray[Any]:
    weight = np.asarray(node.weight)
    return weight.reshape(len(weight), -1)
