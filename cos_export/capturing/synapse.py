"""A synapse whose weights may still change while a module is walked, and those that carry what is pending on a wire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import nir
import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray, channel_weight, wired_weight
from cos_export.capturing.values import Term, vector
from cos_export.network.graph import Shape

__all__ = [
    "LARGEST_DENSE",
    "Synapse",
    "carrier",
    "check_finite",
    "check_finite_weights",
    "depthwise",
    "pays_depthwise",
    "pointwise",
    "set_types",
]

LARGEST_DENSE = 4096
"""Weights of a dense synapse that does no more than a diagonal: above, it is one with a group for each channel."""


@dataclass
class Synapse:
    """A convolution or affine map whose weights may still change, in float64.

    Attributes:
        weight: (out, in), (out, in / groups, k) or (out, in / groups, kh, kw).
        bias: (out,).
        input_shape: What it takes.
        output_shape: What it gives.
        stride: One number per spatial axis, as dilation.
        padding: One number per spatial axis, or "same" where a side gets one more than the other.
        dilation: Spacing of the kernel.
        groups: Of channels.
        reads: The input channels that it is wired to, in ascending order, where it has weights of 0 for the others;
            None for all.
    """

    weight: DoubleArray
    bias: DoubleArray
    input_shape: Shape
    output_shape: Shape
    stride: Shape = ()
    padding: Shape | Literal["same"] = ()
    dilation: Shape = ()
    groups: int = 1
    reads: tuple[int, ...] | None = None

    def node(self) -> nir.NIRNode:
        """The NIR node, its weights rounded to float32."""
        weight, bias = self.weight.astype(np.float32), self.bias.astype(np.float32)
        if weight.ndim == 2:
            return nir.Affine(weight=weight, bias=bias)
        if weight.ndim == 3:
            padding = self.padding if self.padding == "same" else self.padding[0]
            node = nir.Conv1d(self.input_shape[1], weight, self.stride[0], padding, self.dilation[0], self.groups, bias)
        else:
            node = nir.Conv2d(self.input_shape[1:], weight, self.stride, self.padding, self.dilation, self.groups, bias)
        # NIR infers these right for square kernels without groups only.
        set_types(node, self.input_shape, self.output_shape)
        return node


def pays_depthwise(shape: Shape) -> bool:
    """Whether a diagonal over channels is better kept as a depthwise synapse. Features have no such synapse."""
    return len(shape) > 1 and shape[0] ** 2 > LARGEST_DENSE


def carrier(term: Term, shape: Shape) -> Synapse:
    """The synapse that does what is pending on a term, and nothing else."""
    if term.index is None and pays_depthwise(shape):
        return depthwise(shape, np.array(vector(term.scale, term.channels)), np.zeros(shape[0]))
    weight = wired_weight(channel_weight(np.ones(shape[0]), shape), term, 1)
    return replace(pointwise(shape, weight, np.zeros(shape[0]), in_channels=term.width), reads=term.reads)


def depthwise(shape: Shape, gain: DoubleArray, offset: DoubleArray) -> Synapse:
    """The synapse that multiplies each channel by its gain and adds its offset, a group for each."""
    axes = len(shape) - 1
    weight = gain.reshape(-1, *[1] * (axes + 1))
    return Synapse(weight, offset, shape, shape, (1,) * axes, (0,) * axes, (1,) * axes, groups=shape[0])


def pointwise(shape: Shape, weight: DoubleArray, offset: DoubleArray, in_channels: int | None = None) -> Synapse:
    """The synapse of a kernel of one place, or of a matrix.

    Args:
        shape: Of the result.
        weight: (channels of the result, its input channels, 1, ...), or without the ones.
        offset: (channels of the result,).
        in_channels: Channels that it takes, if they are not as many as those of the result.
    """
    axes = len(shape) - 1
    source = (shape[0] if in_channels is None else in_channels, *shape[1:])
    return Synapse(weight, offset, source, shape, (1,) * axes, (0,) * axes, (1,) * axes)


def check_finite(synapse: Synapse) -> None:
    """Refuses weights that are not finite float32 numbers.

    Raises:
        Unsupported: One is not.
    """
    check_finite_weights(synapse.weight, synapse.bias)


def check_finite_weights(*arrays: DoubleArray) -> None:
    """Refuses arrays that are not finite in float32, as `check_finite` those of a synapse."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite = all(np.isfinite(array.astype(np.float32)).all() for array in arrays)
    if not finite:
        raise Unsupported(
            "its weights, once batch norm and thresholds are folded in, hold values that are not finite in float32",
            "look for nan, inf or a vanishing running variance in the trained weights",
        )


def set_types(node: nir.NIRNode, input_shape: Shape, output_shape: Shape) -> None:
    """Notes the shapes of what `node` takes and gives."""
    node.input_type, node.output_type = {"input": np.array(input_shape)}, {"output": np.array(output_shape)}
