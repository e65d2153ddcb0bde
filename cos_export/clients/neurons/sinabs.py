"""Neurons of sinabs: `IAF` with one spike a step and reset by subtraction, which fires at its threshold and above."""

from __future__ import annotations

from sinabs.activation import MembraneSubtract, SingleSpike
from sinabs.layers import IAF
from torch import Tensor

from cos_export.clients.neurons.layer import Neurons, tensor
from cos_export.clients.nir_graph import Layer
from cos_export.errors import NetworkError

__all__ = ["neurons"]


class _Sinabs(IAF):  # type: ignore[misc]
    def start(self, potential: Tensor) -> None:
        self.init_state_with_shape(potential.shape)
        self.v_mem = potential

    def forward(self, current: Tensor) -> Tensor:
        spikes: Tensor = super().forward(current.unsqueeze(1))  # (batch, time, ...)
        return spikes.squeeze(1)


def neurons(layer: Layer) -> Neurons:
    """A layer of sinabs's neurons.

    Raises:
        NetworkError: It fires above its threshold only, or is reset to a value.
    """
    if layer.strict:
        raise NetworkError(f"sinabs fires at the threshold, and layer {layer.name!r} strictly above it.")
    if layer.v_reset is not None:
        # MembraneReset adds its value to every neuron, whether it fired or not.
        raise NetworkError(f"sinabs resets by subtraction here, and layer {layer.name!r} is reset to a value.")
    made: Neurons = _Sinabs(
        spike_threshold=tensor(layer.threshold), spike_fn=SingleSpike, reset_fn=MembraneSubtract(), min_v_mem=None
    )
    return made
