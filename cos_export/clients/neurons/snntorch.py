"""Neurons of snnTorch: `Leaky` with beta = 1, reset by subtraction in the step after the spike."""

from __future__ import annotations

import snntorch
import torch
from torch import Tensor

from cos_export.clients.neurons.layer import Neurons, tensor
from cos_export.clients.nir_graph import Layer
from cos_export.errors import NetworkError

__all__ = ["neurons"]


class _AtThreshold(torch.autograd.Function):
    """1 at 0 and above, with snnTorch's arctan surrogate gradient; its own spike is 1 above 0 only."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, distance: Tensor) -> Tensor:
        context.save_for_backward(distance)
        spikes: Tensor = (distance >= 0).to(distance.dtype)
        return spikes

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (distance,) = context.saved_tensors  # type: ignore[attr-defined]
        result: Tensor = gradient / (1 + (torch.pi * distance).square())
        return result


class _SnnTorch(snntorch.Leaky):  # type: ignore[misc]
    def start(self, potential: Tensor) -> None:
        # It subtracts in a step what it fired in the one before: a potential that starts at the threshold or above
        # would be taken for one that fired.
        self._potential = torch.where(potential >= self.threshold, potential + self.threshold, potential)

    def forward(self, current: Tensor) -> Tensor:
        spikes: Tensor
        spikes, self._potential = super().forward(current, self._potential)
        return spikes


def neurons(layer: Layer) -> Neurons:
    """A layer of snnTorch's neurons.

    Raises:
        NetworkError: It is reset to a value, or fires above its threshold only.
    """
    if layer.v_reset is not None:
        raise NetworkError(f"snnTorch resets by subtraction or to 0, and layer {layer.name!r} is reset to a value.")
    if layer.strict:
        raise NetworkError(f"snnTorch is made to fire at the threshold, and layer {layer.name!r} fires above it.")
    made: Neurons = _SnnTorch(
        beta=1.0,
        threshold=tensor(layer.threshold),
        spike_grad=_AtThreshold.apply,
        reset_mechanism="subtract",
        reset_delay=True,
    )
    return made
