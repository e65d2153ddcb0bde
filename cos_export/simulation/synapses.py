"""What each type of NIR node that is not a neuron computes, as a function over tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch

import nir
import torch
from torch import Tensor
from torch.nn import functional

from cos_export.errors import NetworkError
from cos_export.network.graph import Convolution, Shape, convolution, pooling

__all__ = ["Synapse", "is_multiple", "synapse"]

Synapse = Callable[[Tensor], Tensor]
"""(samples, ...) -> (samples, ...)."""


@singledispatch
def synapse(node: nir.NIRNode, move: Callable[[object], Tensor]) -> Synapse:
    """The function over (samples, ...) that `node` computes, its weights brought over by `move`.

    Raises:
        NetworkError: The node's type cannot be run.
    """
    raise NetworkError(f"A node of type {type(node).__name__} cannot be run in PyTorch.")


def _same(values: Tensor) -> Tensor:
    return values


@synapse.register(nir.Input)
@synapse.register(nir.Output)
def _(node: nir.NIRNode, move: Callable[[object], Tensor]) -> Synapse:
    return _same


def _even(padding: tuple[tuple[int, int], ...]) -> Shape | None:
    return tuple(p for p, _ in padding) if all(p == q for p, q in padding) else None


def is_multiple(weight: Tensor, bias: Tensor, geometry: Convolution) -> bool:
    """Whether a convolution is its input times one number, as that on a residual's identity path is.

    A product leaves out the other channels' zeros, changes no bit, and takes half the time. Where a gradient goes to
    the weights it must reach all of them, so they are not looked at, and a convolution it is.

    Args:
        weight: (out, in, ...) of the convolution.
        bias: (out,).
        geometry: How it slides.
    """
    if weight.requires_grad or bias.requires_grad:
        return False
    plain = all(n == 1 for n in (*geometry.kernel, *geometry.stride, geometry.groups))
    if not plain or len(weight) != weight.shape[1] or any(p for pair in geometry.padding for p in pair):
        return False
    square = weight.flatten(1)
    identity = torch.eye(len(square), dtype=square.dtype, device=square.device)
    return not bool(bias.any()) and torch.equal(square, square[0, 0] * identity)


LARGEST_PICKED = 64
"""Channels of a wire that a matrix product picks from faster than a convolution does group by group."""


def _one_of_each(weight: Tensor, bias: Tensor, geometry: Convolution) -> Synapse | None:
    """A grouped convolution that sends on each channel as a multiple of one of its input, or None if it does more.

    So does what brings the channels of a join to their places. A sum of one product and of zeros is that product,
    however it is added up, and small groups are what convolutions are slowest at, in float64 most of all. As for
    `is_multiple`, a gradient that goes to the weights must reach all of them.
    """
    if weight.requires_grad or bias.requires_grad or weight.ndim != 4 or geometry.groups == 1:
        return None
    plain = all(n == 1 for n in (*geometry.kernel, *geometry.stride)) and not any(
        p for pair in geometry.padding for p in pair
    )
    rows = weight.flatten(1)
    if not plain or bool(bias.any()) or int(torch.count_nonzero(rows, 1).max()) > 1:
        return None
    groups, (count, size) = geometry.groups, rows.shape
    if count == groups and size == 1:
        return partial(torch.mul, rows.reshape(-1, 1, 1).clone())
    if groups * size > LARGEST_PICKED:
        return None
    matrix, outputs = rows.new_zeros(groups, size, count), torch.arange(count, device=rows.device)
    matrix[outputs * groups // count, :, outputs] = rows
    matrix = matrix.flatten(0, 1)
    return lambda values: torch.matmul(values.movedim(1, -1), matrix).movedim(-1, 1)


def _pad(values: Tensor, geometry: Convolution) -> Tensor:
    return functional.pad(values, [p for pair in reversed(geometry.padding) for p in pair])


@synapse.register(nir.Conv1d)
@synapse.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, move: Callable[[object], Tensor]) -> Synapse:
    weight, bias, geometry = move(node.weight), move(node.bias), convolution(node)
    if is_multiple(weight, bias, geometry):
        return partial(torch.mul, weight.flatten()[0].clone())
    picked = _one_of_each(weight, bias, geometry)
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    apply = functional.conv1d if weight.ndim == 3 else functional.conv2d
    even = _even(geometry.padding)
    slide = partial(
        apply,
        weight=weight,
        bias=bias,
        stride=geometry.stride,
        padding=even if even is not None else 0,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )
    if picked is not None:
        # The gradient to its input is a sum of several, in the convolution's order.
        return lambda values: slide(values) if values.requires_grad else picked(values)
    if even is not None:
        return slide
    return lambda values: slide(_pad(values, geometry))


@synapse.register
def _(node: nir.Affine, move: Callable[[object], Tensor]) -> Synapse:
    return partial(functional.linear, weight=move(node.weight), bias=move(node.bias))


@synapse.register
def _(node: nir.Linear, move: Callable[[object], Tensor]) -> Synapse:
    return partial(functional.linear, weight=move(node.weight))


@synapse.register
def _(node: nir.Scale, move: Callable[[object], Tensor]) -> Synapse:
    return partial(torch.mul, move(node.scale))


@synapse.register(nir.SumPool2d)
@synapse.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d, move: Callable[[object], Tensor]) -> Synapse:
    window = pooling(node)
    return partial(
        functional.avg_pool2d,
        kernel_size=window.kernel,
        stride=window.stride,
        padding=window.padding,
        divisor_override=1 if isinstance(node, nir.SumPool2d) else None,
    )


@synapse.register
def _(node: nir.Flatten, move: Callable[[object], Tensor]) -> Synapse:
    start, end = int(node.start_dim), int(node.end_dim)
    return partial(torch.flatten, start_dim=start + 1 if start >= 0 else start, end_dim=end + 1 if end >= 0 else end)
