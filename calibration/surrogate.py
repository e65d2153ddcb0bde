"""A run of spikes that gradients pass through, for methods that tune a layer's parameters by gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_export.neuron import sample_blocks

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
    def forward(
        ctx: Any, currents: Tensor, bias: Tensor | None, v_init: Tensor, threshold: Tensor, steps: int
    ) -> Tensor:
        spikes = torch.empty_like(currents[:1].expand(steps, *currents.shape[1:]))
        charged = torch.empty_like(spikes, dtype=v_init.dtype)
        start, level = v_init.expand(currents.shape[1:]), _level(threshold, currents)
        added = None if bias is None else [_level(value, currents) for value in bias]
        for block in sample_blocks(currents):
            potential = start[block]
            for t in range(steps):
                current = currents[t if len(currents) > 1 else 0, block].to(v_init.dtype)
                m = torch.add(potential, current, out=charged[t, block])
                if added is not None:
                    m += added[t]
                s = torch.ge(m, level).to(m.dtype)
                spikes[t, block] = s
                potential = torch.addcmul(m, s, level, value=-1)
        ctx.save_for_backward(charged, threshold)
        ctx.held, ctx.dtype = len(currents) < steps, currents.dtype
        ctx.shapes = None if bias is None else bias.shape, v_init.shape, threshold.shape
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        charged, threshold = ctx.saved_tensors
        wants_currents, wants_bias, wants_v_init, wants_threshold, _ = ctx.needs_input_grad
        like = charged[:1] if ctx.held else charged
        for_currents = torch.empty_like(like, dtype=ctx.dtype) if wants_currents else None
        for_bias, for_v_init, for_threshold = (
            torch.zeros(shape, dtype=charged.dtype, device=charged.device) if wanted else None
            for shape, wanted in zip(ctx.shapes, (wants_bias, wants_v_init, wants_threshold), strict=True)
        )
        level = _level(threshold, charged)
        for block in sample_blocks(charged):
            g = torch.zeros_like(charged[0, block])
            held = torch.zeros_like(g)
            for t in reversed(range(len(charged))):
                excess = (charged[t, block] / level).sub_(1.0)
                reaching = torch.addcmul(gradients[0][t, block].to(g.dtype), level, g, value=-1)
                reaching *= excess.abs().neg_().add_(1.0).clamp_(min=0.0).div_(level)
                if for_threshold is not None:
                    change = torch.addcmul(torch.where(excess >= 0, g, 0.0), reaching, excess + 1.0)
                    for_threshold -= change.sum_to_size(for_threshold.shape)
                g = reaching.add_(g)
                if for_bias is not None:
                    for_bias[t] += g.sum_to_size(for_bias.shape[1:])
                if for_currents is not None and not ctx.held:
                    for_currents[t, block] = g
                elif for_currents is not None:
                    held += g
            if for_currents is not None and ctx.held:
                for_currents[0, block] = held
            if for_v_init is not None:
                for_v_init += g.sum_to_size(for_v_init.shape)
        return for_currents, for_bias, for_v_init, for_threshold, None


def _level(values: Tensor, currents: Tensor) -> Tensor:
    """`values` that broadcast to a batch, as one number or one for each neuron in the layout of the currents.

    One for each channel, which lie innermost, would be walked through in pieces as short as there are channels.
    """
    if values.numel() == 1:
        return values
    each = values.reshape(values.shape[-(currents.ndim - 2) :])
    return torch.empty_like(currents[0, 0], dtype=values.dtype).copy_(each)


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
        threshold: theta, shape () or what broadcasts to (...).
        bias: beta for each step, (steps, 1, channels, 1, ...), or None.
    """
    spikes: Tensor = _Train.apply(currents, bias, v_init, threshold, steps)  # type: ignore[no-untyped-call]
    return spikes
