"""A run of spikes that gradients pass through, for methods that tune a layer's parameters by gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiable_train"]


class _Train(torch.autograd.Function):
    """The contract of `cos_export.neuron` with the soft reset, and its gradient through time.

    Only m(t) is kept of a step: the spike is its sign against theta. With d(t) = dL/ds(t), the triangle
    h(t) = max(0, 1 - |m(t) / theta - 1|) / theta in place of the derivative of the step, and g = dL/dv(T) = 0,
    for t = T..1:

        e(t)      = d(t) - theta g                    reaches the spike: by what it sends on, and by its reset
        dL/dI(t)  = e(t) h(t) + g                     = dL/dv(t-1)
        dL/dtheta = sum over t of -e(t) h(t) m(t) / theta - g s(t)
        g         = dL/dI(t)
    """

    @staticmethod
    def forward(ctx: Any, currents: Tensor, bias: Tensor | None, v_init: Tensor, threshold: Tensor) -> Tensor:
        steps = currents.shape[0] if bias is None else bias.shape[0]
        potential = v_init.expand(currents.shape[1:])
        charged = torch.empty_like(currents[:1].expand(steps, *currents.shape[1:]))
        spikes = torch.empty_like(charged)
        for t in range(steps):
            m = torch.add(potential, currents[t if len(currents) > 1 else 0], out=charged[t])
            if bias is not None:
                m += bias[t]
            s = torch.ge(m, threshold, out=spikes[t])
            potential = torch.addcmul(m, s, threshold, value=-1)
        ctx.save_for_backward(charged, threshold)
        ctx.shapes = currents.shape, None if bias is None else bias.shape, v_init.shape, threshold.shape
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        charged, threshold = ctx.saved_tensors
        wants_currents, wants_bias, wants_v_init, wants_threshold = ctx.needs_input_grad
        of_currents, of_bias, of_v_init, of_threshold = ctx.shapes
        held = of_currents[0] == 1
        for_currents = torch.empty_like(charged[:1] if held else charged) if wants_currents else None
        for_bias = torch.empty(of_bias, dtype=charged.dtype, device=charged.device) if wants_bias else None
        for_threshold = torch.zeros(of_threshold, dtype=charged.dtype, device=charged.device)
        g = torch.zeros_like(charged[0])
        for t in reversed(range(len(charged))):
            excess = (charged[t] / threshold).sub_(1.0)
            reaching = torch.addcmul(gradients[0][t], threshold, g, value=-1)
            reaching *= excess.abs().neg_().add_(1.0).clamp_(min=0.0).div_(threshold)
            if wants_threshold:
                change = torch.addcmul(torch.where(excess >= 0, g, 0.0), reaching, excess + 1.0)
                for_threshold -= _reduced(change, of_threshold)
            g = reaching.add_(g)
            if for_currents is not None and not held:
                for_currents[t] = g
            elif for_currents is not None and t == len(charged) - 1:
                for_currents[0] = g
            elif for_currents is not None:
                for_currents[0] += g
            if for_bias is not None:
                for_bias[t] = _reduced(g, of_bias[1:])
        return for_currents, for_bias, _reduced(g, of_v_init) if wants_v_init else None, for_threshold


def _reduced(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of an array of `shape` that was broadcast to the gradient's shape."""
    return gradient.sum_to_size(shape)


def differentiable_train(
    currents: Tensor, steps: int, v_init: Tensor, threshold: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Spikes (steps, batch, ...) of a layer with the soft reset, with gradients to all that they depend on.

    The derivative of a spike by m / theta is taken as the triangle max(0, 1 - |m / theta - 1|), that of the step
    being zero.

    Args:
        currents: I, (steps, batch, ...), or (1, batch, ...) if it is the same at every step.
        steps: T.
        v_init: v(0), (...), (1, ...) or (batch, ...).
        threshold: theta, shape () or what broadcasts to (batch, ...).
        bias: beta for each step, (steps, 1, channels, 1, ...) or what broadcasts to (steps, batch, ...), or None.
    """
    if bias is None and len(currents) == 1:
        bias = currents.new_zeros(steps, *[1] * (currents.ndim - 1))
    spikes: Tensor = _Train.apply(currents, bias, v_init, threshold)  # type: ignore[no-untyped-call]
    return spikes
