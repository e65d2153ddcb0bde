"""The number of spikes of a window that gradients pass through: no gradient through time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiable_counts"]

_BELOW_ZERO = -torch.finfo(torch.float32).tiny
"""The largest number below 0: the gradient passes where x lies strictly between the limits, and 0 is within."""


class _Counts(torch.autograd.Function):
    """n = clip(floor(x), 0, T) of x = m / theta, with the derivative by x 1 where 0 <= x < T + 1 and 0 elsewhere.

    With d = dL/dn there and 0 elsewhere, for each neuron, summed over what shares a parameter:

        dL/dm = d / theta        dL/dtheta = -d x / theta

    An update passes over each layer's neurons four times forward and five times back; m itself is not kept.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, start: Tensor, threshold: Tensor, steps: int) -> Tensor:
        ratio = torch.add(total.to(start.dtype), start).div_(threshold)
        ctx.save_for_backward(ratio, start, threshold)
        ctx.steps, ctx.dtype = steps, total.dtype
        return ratio.floor().clamp_(0.0, float(steps)).to(total.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ratio, start, threshold = ctx.saved_tensors
        wants_total, wants_start, wants_threshold, _ = ctx.needs_input_grad
        gradient = gradients[0].to(ratio.dtype)
        passed = torch.ops.aten.hardtanh_backward(gradient, ratio, _BELOW_ZERO, float(ctx.steps + 1))
        passed.div_(threshold)
        return (
            passed.to(ctx.dtype) if wants_total else None,
            passed.sum_to_size(start.shape) if wants_start else None,
            (passed * ratio).sum_to_size(threshold.shape).neg() if wants_threshold else None,
            None,
        )


def differentiable_counts(
    total: Tensor, steps: int, v_init: Tensor, threshold: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The number of spikes of each neuron in a window of T steps, (1, batch, ...).

        n = clip(floor((v_init + sum over the window of I(t) + beta(t)) / theta), 0, T)

    The floor's derivative is taken as one inside 0 <= m / theta < T + 1 (straight-through): between its steps n follows
    m / theta in the mean, so v_init is the offset by which a neuron rounds.

    Args:
        total: The sum over the window of I(t), (1, batch, ...).
        steps: T.
        v_init: (...).
        threshold: theta, (...) or one number.
        bias: beta, (T, 1, channels, 1, ...), or None.
    """
    start = v_init if bias is None else v_init + bias[:steps].sum(0)
    counts: Tensor = _Counts.apply(total, start, threshold, steps)  # type: ignore[no-untyped-call]
    return counts
