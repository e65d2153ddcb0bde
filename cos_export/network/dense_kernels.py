"""Convolutions with groups or oblong kernels as dense square ones, for readers that know no others."""

from __future__ import annotations

import nir
import numpy as np

from cos_export.errors import NetworkError
from cos_export.network.graph import Convolution, Shape, convolution, with_attributes
from cos_export.network.neuron_spec import FloatArray
from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["with_dense_kernels"]


def with_dense_kernels(network: SpikingNetwork) -> SpikingNetwork:
    """The network with every convolution of one group and, in two dimensions, of a square kernel.

    What is added are weights of 0: between the channels of different groups, and around an oblong kernel, whose padding
    grows as far. So each sum has the same terms. A kernel that is padded by "same" stays oblong: readers have no
    trouble with it.

    Args:
        network: It stays as it is.

    Raises:
        NetworkError: No padding makes a kernel square; the message names the node.
    """
    nodes = {
        name: _dense(name, node, network.shapes[network.predecessors[name][0]])
        for name, node in network.graph.nodes.items()
        if isinstance(node, nir.Conv1d | nir.Conv2d)
    }
    return network.with_nodes(nodes)


def _dense(name: str, node: nir.Conv1d | nir.Conv2d, arriving: Shape) -> nir.NIRNode:
    geometry, weight = convolution(node), np.asarray(node.weight)
    if geometry.groups > 1:
        weight = _one_group(weight, geometry.groups)
    if isinstance(node, nir.Conv1d) or len(set(geometry.kernel)) == 1 or isinstance(node.padding, str | bytes):
        return with_attributes(node, weight=weight, groups=1)
    try:
        weight, padding = _square(weight, geometry, arriving[1:])
    except NetworkError as error:
        raise NetworkError(f"Node {name!r} ({type(node).__name__}): {error}") from None
    return with_attributes(node, weight=weight, groups=1, padding=np.array(padding))


def _one_group(weight: FloatArray, groups: int) -> FloatArray:
    outputs, inputs = weight.shape[:2]
    dense = np.zeros((outputs, inputs * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense


def _square(weight: FloatArray, geometry: Convolution, sizes: Shape) -> tuple[FloatArray, Shape]:
    """The kernel inside a square one, and the padding with which that gives the same numbers in the same places."""
    for side in (max(geometry.kernel), max(geometry.kernel) + 1):
        offsets = [_offset(axis, side, geometry, sizes[axis]) for axis in range(2)]
        if None not in offsets:
            down, right = (offset for offset in offsets if offset is not None)
            height, width = geometry.kernel
            square = np.zeros((*weight.shape[:2], side, side), weight.dtype)
            square[:, :, down : down + height, right : right + width] = weight
            padding = tuple(
                before + offset * step
                for (before, _), offset, step in zip(geometry.padding, (down, right), geometry.dilation, strict=True)
            )
            return square, padding
    height, width = geometry.kernel
    raise NetworkError(
        f"a kernel of {height} x {width} cannot be written as a square one, for NIR pads both sides of an axis alike."
    )


def _offset(axis: int, side: int, geometry: Convolution, size: int) -> int | None:
    """Where the kernel begins in one of `side`, so that as many windows fit as before."""
    kernel, stride, dilation = geometry.kernel[axis], geometry.stride[axis], geometry.dilation[axis]
    before, after = geometry.padding[axis]
    slack = size + before + after - dilation * (kernel - 1) - 1
    for offset in range(side - kernel + 1):
        # The window grows by side - kernel taps, and each side of the axis by offset of them.
        grown = slack + dilation * (2 * offset - (side - kernel))
        if grown >= 0 and grown // stride == slack // stride:
            return offset
    return None
