"""The quantised activation that a network is trained with, so that few time-steps stand for it well."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cos_export.errors import InputError

__all__ = ["QCFS", "qcfs"]


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


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    z, threshold, activation = ctx.saved_tensors
    inside = (z >= 0) & (z <= threshold)
    for_z = gradient * inside if ctx.needs_input_grad[0] else None
    for_threshold = None
    if ctx.needs_input_grad[1]:
        slope = torch.where(inside, (activation - z) / threshold, (z > threshold).to(z.dtype))
        for_threshold = (gradient * slope).sum().to(threshold.dtype)
    return for_z, for_threshold, None


qcfs.register_autograd(_backward, setup_context=_keep)


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
        levels: L. It is no part of the state dict: build the module with the L it was trained with.

    Raises:
        InputError: L is below 1, or lambda is not a positive number.

    Source: Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs", ICLR 2022.
    """

    def __init__(self, levels: int = 4, threshold: float = 8.0) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"QCFS needs at least 1 level, and levels is {levels}.")
        if not (math.isfinite(threshold) and threshold > 0):
            raise InputError(f"The threshold of QCFS must be a positive number, and is {threshold}.")
        self.levels = int(levels)
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, z: Tensor) -> Tensor:
        """The activation of `z`, any shape."""
        activation: Tensor = qcfs(z, self.threshold, self.levels)
        return activation

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"levels={self.levels}, threshold={float(self.threshold.detach()):.4g}"
