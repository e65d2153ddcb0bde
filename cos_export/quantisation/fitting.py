"""Weights as integers one input after the other, each taking up the errors that those before it have made.

The nearest integers make the error of each weight least, and not that of the current: inputs that go together, such as
neighbouring pixels, add their errors up. Each channel is a problem of least squares, solved as by Frantar et al.,
"GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023; the bias takes up the
mean, as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
"""

from __future__ import annotations

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cos_export.device import full_precision
from cos_export.network.graph import convolution, with_attributes
from cos_export.network.node_facts import facts
from cos_export.quantisation.counting import Scales, expanded, weights_by_input
from cos_export.quantisation.scales import Rounding, rounded_synapse, squared_error

__all__ = ["fitted_synapse"]

DAMPING = 0.01
"""Of the mean variance of the inputs, added to each: the images are a sample, and some weights they hardly use."""

LARGEST_BLOCK = 4608
"""Inputs whose correlations are heeded: as many as a 3 x 3 convolution of 512 channels has, 170 MB in float64."""

_ROUNDED = 2.0**-22
"""By how much of a mean square, for each input, the eigenvalues of moments may be off that were summed in float32.

What hardly changes from image to image, but for its mean, has variances below that, and even negative ones."""

_PANEL = 64
"""Inputs whose errors are handed on to all later ones together, in one product of matrices."""

_CHUNK = 8
"""Samples whose patches are laid out at once."""

Matrix = NDArray[np.float64]


def fitted_synapse(
    node: nir.NIRNode, input_scale: Scales | float, output_scale: Scales, rounding: Rounding, inputs: Tensor
) -> nir.NIRNode:
    """A weighted node in integers whose output over the images at hand is close to that of the node.

    With w = W input_scale / output_scale, the covariance C of the inputs x / input_scale over images and positions and
    H = C + damping, the weights of one input after the other are rounded, that of the largest variance first. With F
    the inputs that are left, j among them,

        w_int[j] = the nearer to w[j] of the two integers beside W[j] input_scale / output_scale, clipped to its bits
        w[k]    -= (w[j] - w_int[j]) (H_F^-1)[j, k] / (H_F^-1)[j, j]        for each other k in F
        b_int    = round((b - E[(w_int output_scale / input_scale - W) x]) / output_scale)      when all are rounded

    A node without a bias has E[x x^T] in place of C. An output channel whose nearest integers (`rounded_synapse`) turn
    out closer gets those.

    Args:
        node: The node. One without a bias whose outputs take one input each gets the nearest integers.
        input_scale: What 1 stands for in its input: one number for each channel, or one in all.
        output_scale: What 1 stands for in its output: one number for each channel, or one in all.
        rounding: Of the weights.
        inputs: What arrives at it, (samples, ...), not yet in integers.
    """
    nearest = rounded_synapse(node, input_scale, output_scale, rounding)
    known = facts(node)
    if known.weights is None or (known.terms == 1 and known.bias is None):
        return nearest
    weight = np.asarray(getattr(node, known.weights), np.float64)
    scale = expanded(output_scale, len(weight))
    counted = weight * weights_by_input(node, input_scale)
    exact = counted.reshape(len(weight), -1) / scale[:, None]
    groups, fan_in = int(getattr(node, "groups", 1)), exact.shape[1]
    by_channel = expanded(input_scale, inputs.shape[1]).reshape(-1, *[1] * (inputs.ndim - 2))
    counts = inputs / torch.from_numpy(by_channel).to(inputs)
    has_bias = known.bias is not None
    fitted, drift = np.empty_like(exact), np.zeros(len(exact))
    for start in range(0, fan_in, LARGEST_BLOCK):
        block = slice(start, min(start + LARGEST_BLOCK, fan_in))
        for own, (mean, moments) in zip(
            np.split(np.arange(len(exact)), groups), _moments(node, counts, groups, block), strict=True
        ):
            spread = moments - np.outer(mean, mean) if has_bias else moments
            noise = _ROUNDED * len(moments) * float(np.diag(moments).mean())
            fitted[own, block] = _handed_on(exact[own, block], spread, rounding, noise)
            drift[own] += (fitted[own, block] - exact[own, block]) @ mean * scale[own]
    fitted_node = with_attributes(node, weight=fitted.reshape(weight.shape).astype(np.float32))
    if has_bias:
        bias = np.broadcast_to(np.asarray(node.bias, np.float64), scale.shape)
        fitted_node = with_attributes(fitted_node, bias=np.rint((bias - drift) / scale).astype(np.float32))
    closer = squared_error(node, fitted_node, input_scale, output_scale, inputs) < squared_error(
        node, nearest, input_scale, output_scale, inputs
    )
    fields = ("weight", "bias") if has_bias else ("weight",)
    return with_attributes(
        nearest,
        **{
            field: np.where(
                _column(closer, getattr(fitted_node, field)), getattr(fitted_node, field), getattr(nearest, field)
            )
            for field in fields
        },
    )


def _column(values: NDArray[np.bool_], like: NDArray[np.float32]) -> NDArray[np.bool_]:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _handed_on(exact: Matrix, spread: Matrix, rounding: Rounding, noise: float = 0.0) -> Matrix:
    """Integers (outputs, inputs) for `exact`, whose inputs have moments `spread` (inputs, inputs), off by `noise`."""
    variances = np.diag(spread)
    count, mean = len(spread), float(variances.mean())
    if mean <= 0:
        return rounding.weights(exact)
    order = np.argsort(-variances, kind="stable")
    damped = spread[np.ix_(order, order)] + max(DAMPING * mean, noise) * np.eye(count)
    # Row j of the factor is that of H_F^-1 over the root of its diagonal, for F = j, j + 1, ...
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    below, above = rounding.beside(exact[:, order])
    left, integers = exact[:, order].copy(), np.empty_like(exact)
    for start in range(0, count, _PANEL):
        end = min(start + _PANEL, count)
        errors = np.empty((len(left), end - start))
        for j in range(start, end):
            integers[:, j] = np.clip(rounding.weights(left[:, j]), below[:, j], above[:, j])
            errors[:, j - start] = (left[:, j] - integers[:, j]) / factor[j, j]
            left[:, j:end] -= np.outer(errors[:, j - start], factor[j, j:end])
        left[:, end:] -= errors @ factor[start:end, end:]
    return integers[:, np.argsort(order)]


def _moments(node: nir.NIRNode, inputs: Tensor, groups: int, block: slice) -> list[tuple[Matrix, Matrix]]:
    """E[x], (inputs,), and E[x x^T], (inputs, inputs), over images and positions, for each group of the node."""
    fan_in, count = block.stop - block.start, 0
    total = torch.zeros(groups, fan_in, dtype=torch.float64, device=inputs.device)
    squares = torch.zeros(groups, fan_in, fan_in, dtype=torch.float64, device=inputs.device)
    with torch.no_grad(), full_precision():
        for start in range(0, len(inputs), _CHUNK):
            laid_out = _patches(node, inputs[start : start + _CHUNK])
            by_group = laid_out.reshape(len(laid_out), groups, -1, laid_out.shape[2])
            patches = by_group[:, :, block].permute(1, 2, 0, 3).flatten(2)
            total += patches.sum(2, dtype=torch.float64)
            squares += (patches @ patches.mT).double()
            count += patches.shape[2]
    return [(m.cpu().numpy() / count, s.cpu().numpy() / count) for m, s in zip(total, squares, strict=True)]


def _patches(node: nir.NIRNode, values: Tensor) -> Tensor:
    """What each output position takes of (samples, ...): (samples, inputs of all groups, positions)."""
    if facts(node).geometry is None:
        return values.flatten(1).unsqueeze(2)
    geometry = convolution(node)
    flat = values.unsqueeze(2) if len(geometry.kernel) == 1 else values
    along = (1,) * (2 - len(geometry.kernel))
    padding = [p for pair in reversed(geometry.padding) for p in pair]
    padded = functional.pad(flat, padding)
    return functional.unfold(padded, along + geometry.kernel, along + geometry.dilation, 0, along + geometry.stride)
