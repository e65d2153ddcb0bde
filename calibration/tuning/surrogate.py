"""A run of spikes that gradients pass through, for methods that tune a layer's parameters by gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cos_export.errors import UnavailableError
from cos_export.simulation.neuron import sample_blocks

__all__ = ["check_compiler", "differentiable_train"]

Fired = Callable[[Tensor, Tensor | None, Tensor, Tensor, int], Tensor]
Passed = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, int, bool], tuple[Tensor, Tensor | None]]

_SHAPES = 256
"""Compiled forms of one function, of which each shape of layer needs its own; PyTorch would stop at 8."""


def _charged(currents: Tensor, bias: Tensor | None, v_init: Tensor, threshold: Tensor, steps: int) -> list[Tensor]:
    """m(t) for each step, (batch, ...)."""
    potential, charged = v_init, []
    for t in range(steps):
        m = potential + currents[t if len(currents) > 1 else 0].to(v_init.dtype)
        if bias is not None:
            m = m + bias[t]
        charged.append(m)
        potential = m - threshold * (m >= threshold).to(m.dtype)
    return charged


def _fired(currents: Tensor, bias: Tensor | None, v_init: Tensor, threshold: Tensor, steps: int) -> Tensor:
    """The spikes, (steps, batch, ...) in the type of the currents."""
    charged = _charged(currents, bias, v_init, threshold, steps)
    return torch.stack([(m >= threshold).to(currents.dtype) for m in charged])


def _passed(
    gradient: Tensor,
    currents: Tensor,
    bias: Tensor | None,
    v_init: Tensor,
    threshold: Tensor,
    steps: int,
    wants_threshold: bool,
) -> tuple[Tensor, Tensor | None]:
    """dL/dI(t), (steps, batch, ...), and what each neuron adds to dL/dtheta, (batch, ...)."""
    charged = _charged(currents, bias, v_init, threshold, steps)
    g: Tensor | None = None
    to_threshold: Tensor | None = None
    passed = []
    for t in reversed(range(steps)):
        ratio = charged[t] / threshold
        reaching = gradient[t].to(ratio.dtype)
        if g is not None:
            reaching = reaching - threshold * g
        triangle = (ratio - 1.0).abs_().neg_().add_(1.0).clamp_(min=0.0)
        reaching = (reaching * triangle).div_(threshold)
        if wants_threshold:
            change = reaching * ratio
            if g is not None:
                change = change + g * (charged[t] >= threshold).to(g.dtype)
            to_threshold = change.neg_() if to_threshold is None else to_threshold - change
        g = reaching if g is None else g + reaching
        passed.append(g.to(currents.dtype))
    return torch.stack(passed[::-1]), to_threshold


def _samples_summed(values: Tensor) -> Tensor:
    """The sum over the batch of (steps, batch, ...), in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).sum(1)


class _Train(torch.autograd.Function):
    """The contract of `cos_export.simulation.neuron` with the soft reset, and its gradient through time.

    Nothing is kept of a run: m(t) is computed again on the way back. With d(t) = dL/ds(t), the triangle
    h(t) = max(0, 1 - |m(t) / theta - 1|) / theta in place of the derivative of the step, and g = dL/dv(T) = 0,
    for t = T..1:

        e(t)      = d(t) - theta g                    reaches the spike: by what it sends on, and by its reset
        dL/dI(t)  = e(t) h(t) + g                     = dL/dv(t-1)
        dL/dtheta = sum over t of -e(t) h(t) m(t) / theta - g s(t)
        g         = dL/dI(t)
    """

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        bias: Tensor | None,
        v_init: Tensor,
        threshold: Tensor,
        steps: int,
        compiled: bool,
    ) -> Tensor:
        ctx.save_for_backward(currents, bias, v_init, threshold)
        ctx.steps, ctx.compiled = steps, compiled
        if compiled:
            return _compiled()[0](currents, _each_step(bias), v_init, threshold, steps)
        spikes = torch.empty_like(currents[:1].expand(steps, *currents.shape[1:]))
        parameters = _laid_out(currents, bias, v_init, threshold)
        for block in sample_blocks(currents):
            spikes[:, block] = _fired(currents[:, block], *parameters, steps)
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        currents, bias, v_init, threshold = ctx.saved_tensors
        wants_currents, wants_bias, wants_v_init, wants_threshold, _, _ = ctx.needs_input_grad
        if ctx.compiled:
            passed, to_threshold = _compiled()[1](
                gradients[0], currents, _each_step(bias), v_init, threshold, ctx.steps, wants_threshold
            )
            summed = _compiled()[2](passed)
        else:
            passed, to_threshold, summed = _passed_in_blocks(gradients[0], currents, ctx, wants_threshold)
        for_currents = None
        if wants_currents:
            for_currents = passed.sum(0, keepdim=True) if len(currents) < ctx.steps else passed
        return (
            for_currents,
            summed.unsqueeze(1).sum_to_size(bias.shape) if wants_bias else None,
            summed[0].sum_to_size(v_init.shape) if wants_v_init else None,
            to_threshold.sum_to_size(threshold.shape) if to_threshold is not None else None,
            None,
            None,
        )


def _passed_in_blocks(
    gradient: Tensor, currents: Tensor, ctx: Any, wants_threshold: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """dL/dI(t), what each neuron adds to dL/dtheta, and the sum of the first over the batch."""
    _, bias, v_init, threshold = ctx.saved_tensors
    parameters = _laid_out(currents, bias, v_init, threshold)
    passed = torch.empty_like(gradient)
    summed = torch.zeros_like(gradient[:, 0], dtype=v_init.dtype)
    to_threshold = torch.zeros_like(summed[:1]) if wants_threshold else None
    for block in sample_blocks(currents):
        part, change = _passed(gradient[:, block], currents[:, block], *parameters, ctx.steps, wants_threshold)
        passed[:, block] = part
        summed += _samples_summed(part)
        if change is not None and to_threshold is not None:
            to_threshold += change.sum(0, keepdim=True)
    return passed, to_threshold, summed


@cache
def _compiled() -> tuple[Fired, Passed, Callable[[Tensor], Tensor]]:
    """The three functions with every pass over memory fused into one."""
    torch._dynamo.config.recompile_limit = max(_SHAPES, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.accumulated_recompile_limit = max(
        4 * _SHAPES, torch._dynamo.config.accumulated_recompile_limit
    )
    return (
        torch.compile(_fired, dynamic=False),
        torch.compile(_passed, dynamic=False),
        torch.compile(_samples_summed, dynamic=False),
    )


def check_compiler(device: torch.device) -> None:
    """Compiles the smallest layer there is.

    Raises:
        UnavailableError: PyTorch finds no compiler for this device.
    """
    one = torch.ones(1, 1, 1, device=device)
    try:
        _compiled()[0](one, None, one[0, 0], one[0, 0, 0], 1)
    except Exception as error:  # What a missing compiler raises depends on the back end.
        raise UnavailableError(
            f"PyTorch cannot compile for {device.type} here: {str(error).splitlines()[0]} On a CPU it needs a C++ "
            "compiler such as g++. Without --compile the result is the same up to rounding, and takes longer."
        ) from error


def _each_step(bias: Tensor | None) -> Tensor | None:
    """(steps, 1, channels, 1, ...) as (steps, channels, 1, ...), which broadcasts to (batch, ...) step by step."""
    return None if bias is None else bias[:, 0]


def _laid_out(
    currents: Tensor, bias: Tensor | None, v_init: Tensor, threshold: Tensor
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Bias, v(0) and theta as one number or one for each neuron, in the layout of the currents.

    One for each channel, which lie innermost, would be walked through in pieces as short as there are channels.
    """

    def laid_out(values: Tensor) -> Tensor:
        each = values.reshape(values.shape[-(currents.ndim - 2) :])
        return torch.empty_like(currents[0, 0], dtype=values.dtype).copy_(each)

    added = None if bias is None else torch.stack([laid_out(value) for value in bias])
    level = threshold if threshold.numel() == 1 else laid_out(threshold)
    return added, v_init, level


def differentiable_train(
    currents: Tensor,
    steps: int,
    v_init: Tensor,
    threshold: Tensor,
    bias: Tensor | None = None,
    *,
    compiled: bool = False,
) -> Tensor:
    """Spikes (steps, batch, ...) of a layer with the soft reset, with gradients to all that they depend on.

    The derivative of a spike by m / theta is taken as the triangle max(0, 1 - |m / theta - 1|), that of the step
    being zero.

    Args:
        currents: I, (steps, batch, ...), or (1, batch, ...) if it is the same at every step.
        steps: T.
        v_init: v(0), (...) or (1, ...).
        threshold: theta, shape () or what broadcasts to (...).
        bias: beta for each step, (steps, 1, channels, 1, ...), or None.
        compiled: Whether `torch.compile` fuses the passes over each layer's neurons; sums may round otherwise.
    """
    spikes: Tensor = _Train.apply(currents, bias, v_init, threshold, steps, compiled)  # type: ignore[no-untyped-call]
    return spikes
