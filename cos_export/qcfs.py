"""The quantised activation that a network is trained with, so that few time-steps stand for it well."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cos_export.bounds import MOST_LEVELS
from cos_export.errors import InputError
from cos_export.whole_number import whole_number

__all__ = ["QCFS", "qcfs"]

_BLOCK = 1 << 17  # values; the arrays that a block is worked on with fit a CPU's last cache

_TINY = torch.finfo(torch.float32).tiny


@torch.library.custom_op("cos_export::qcfs", mutates_args=())
def qcfs(z: Tensor, threshold: Tensor, levels: int) -> Tensor:
    """Quantises, clips and shifts (Bu et al., ICLR 2022), as one operator that `torch.export` keeps whole.

        h = clip(floor(z L / lambda + 1/2) / L, 0, 1)
        a = lambda h

    Backward, with the floor's gradient taken as one and g the gradient of a:

        dz      = g            where 0 <= z <= lambda, else 0
        dlambda = sum g * (h - z / lambda    where 0 <= z <= lambda
                           1                 where z > lambda
                           0                 where z < 0)

    Args:
        z: Pre-activations, any shape.
        threshold: lambda > 0, shape ().
        levels: L >= 1.

    Returns:
        a, of z's shape and dtype.
    """
    # The order of the first three operations is that of `clipped_activation`, so that both round alike.
    return z.mul(levels).div_(threshold).add_(0.5).floor_().div_(levels).clamp_(0.0, 1.0).mul_(threshold)


@qcfs.register_fake
def _(z: Tensor, threshold: Tensor, levels: int) -> Tensor:
    return torch.empty_like(z)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    z, threshold, _ = inputs
    # The output is alive anyway as the next layer's input, so h costs no memory.
    ctx.save_for_backward(z, threshold, output)


@torch.library.custom_op("cos_export::qcfs_backward", mutates_args=())
def _gradients(gradient: Tensor, z: Tensor, threshold: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients dz and dlambda of `qcfs`: an operator too, so that a trace of the backward pass keeps it whole."""
    if z.device.type == "cpu" and z.dtype == torch.float32 and gradient.stride() == z.stride():
        return _gradients_in_blocks(gradient, z, threshold, activation)
    inside = (z >= 0) & (z <= threshold)
    slope = torch.where(inside, (activation - z) / threshold, (z > threshold).to(z.dtype))
    return gradient * inside, (gradient * slope).sum().to(threshold.dtype)


@_gradients.register_fake
def _(gradient: Tensor, z: Tensor, threshold: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(threshold)


def _gradients_in_blocks(gradient: Tensor, z: Tensor, threshold: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
    """The same on a CPU, a few samples at a time so that every pass but the first finds them in its cache.

    It rounds as the plain formula does, but for the sign of zeros and the order of the sum over blocks, in a sixth of
    the time: masks, being of another type than the values, are slow, and so is memory that is touched once.
    """
    scale = float(threshold)
    # The operator's interval is open at both ends, and ours closed: the next float32 outwards makes them one.
    upper = float(torch.nextafter(threshold, threshold.new_tensor(math.inf)))
    for_z = torch.empty_like(z)
    rows = max(1, _BLOCK // max(1, z[:1].numel())) if z.ndim else 1
    arrays = [array if z.ndim else array[None] for array in (gradient, z, activation, for_z)]
    sums = []
    for g, x, a, inside in zip(*(torch.split(array, rows) for array in arrays), strict=True):
        torch.ops.aten.hardtanh_backward.grad_input(g, x, -_TINY, upper, grad_input=inside)
        slope = torch.sub(a, x).div_(threshold)
        # g where z > lambda, and g (a - z) / lambda inside.
        sums.append(torch.ops.aten.threshold_backward.default(g, x, scale).addcmul_(inside, slope).sum())
    return for_z, torch.stack(sums).sum() if sums else torch.zeros_like(threshold)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    z, threshold, activation = ctx.saved_tensors
    if not ctx.needs_input_grad[1]:
        return gradient * ((z >= 0) & (z <= threshold)), None, None
    for_z, for_threshold = _gradients(gradient, z, threshold, activation)
    return (for_z if ctx.needs_input_grad[0] else None), for_threshold, None


qcfs.register_autograd(_backward, setup_context=_keep)
# In mixed precision the staircase stays float32: bfloat16 would move the edges of its steps.
qcfs.register_autocast("cuda", torch.float32)
qcfs.register_autocast("cpu", torch.float32)


class QCFS(nn.Module):
    """Quantization clip-floor-shift activation with a learnable threshold.

        a = lambda * clip(floor(z L / lambda + 1/2) / L, 0, 1),   straight-through gradient of floor

    `cos_export.capture` turns each one into a layer of integrate-and-fire neurons with theta = lambda
    and v(0) = theta / 2. For a constant input and T = L, a neuron of the first layer fires a T / theta times.

    Args:
        levels: L, the number of steps of the staircase.
        threshold: lambda to start from.

    Attributes:
        threshold: lambda, a parameter of shape ().
        levels: L. It is not part of the state dict: build the module with the L it was trained with.

    Raises:
        InputError: L is below 1, or lambda is not a positive number.

    Source: Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs", ICLR 2022.
    """

    def __init__(self, levels: int = 4, threshold: float = 8.0) -> None:
        super().__init__()
        levels = whole_number("levels", levels, 1, MOST_LEVELS)
        if not (math.isfinite(threshold) and threshold > 0):
            raise InputError(f"The threshold of QCFS must be a positive number, and is {threshold}.")
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, z: Tensor) -> Tensor:
        """The activation of `z`, any shape."""
        activation: Tensor = qcfs(z, self.threshold, self.levels)
        return activation

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"levels={self.levels}, threshold={float(self.threshold.detach()):.4g}"
