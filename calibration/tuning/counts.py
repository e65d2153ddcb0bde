"""The number of spikes of a window that gradients pass through: no gradient through time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiable_counts"]


class _Counts(torch.autograd.Function):
    """n = clip(floor(x), 0, T), with the derivative 1 where 0 <= x < T + 1 and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward((ratio >= 0) & (ratio < steps + 1))
        return ratio.floor().clamp_(0.0, float(steps))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


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
    charged = total.to(v_init.dtype) + v_init
    if bias is not None:
        charged = charged + bias[:steps].sum(0)
    counts: Tensor = _Counts.apply(charged / threshold, steps)  # type: ignore[no-untyped-call]
    return counts.to(total.dtype)
