"""A spike that gradients pass through, for methods that tune potentials by gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_export.neuron import NeuronTensors, current_at

__all__ = ["differentiable_train", "spike"]


class _Spike(torch.autograd.Function):
    """Forward: 1 where m / theta >= 1. Backward: the triangle max(0, 1 - |m / theta - 1|) in place of the step's."""

    @staticmethod
    def forward(ctx: Any, excess: Tensor) -> Tensor:
        ctx.save_for_backward(excess)
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        excess: Tensor = ctx.saved_tensors[0]
        return gradients[0] * (1.0 - excess.abs()).clamp_(min=0.0)


def spike(excess: Tensor) -> Tensor:
    """1 where `excess` = (m - theta) / theta is at least 0, else 0, with the triangle as its derivative."""
    result: Tensor = _Spike.apply(excess)  # type: ignore[no-untyped-call]
    return result


def differentiable_train(currents: Tensor, steps: int, neuron: NeuronTensors, v_init: Tensor) -> Tensor:
    """The contract of `cos_export.neuron`, soft reset, with gradients to currents and v_init.

    Args:
        currents: (steps or 1, batch, ...).
        steps: T.
        neuron: The layer.
        v_init: (...) or (batch, ...), in the unit of the threshold's current.

    Returns:
        Spikes (steps, batch, ...).
    """
    potential, train = v_init.expand(currents.shape[1:]), []
    for t in range(steps):
        charged = potential + current_at(currents, t, neuron)
        fired = spike(charged / neuron.threshold - 1.0)
        potential = charged - neuron.threshold * fired
        train.append(fired)
    return torch.stack(train)
