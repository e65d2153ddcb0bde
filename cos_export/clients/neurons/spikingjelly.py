"""Neurons of SpikingJelly: `IFNode`, with one threshold for a whole layer, which fires at it and above."""

from __future__ import annotations

from spikingjelly.activation_based.neuron import IFNode
from torch import Tensor

from cos_export.clients.neurons.layer import Neurons, uniform
from cos_export.clients.nir_graph import Layer
from cos_export.errors import NetworkError

__all__ = ["neurons"]


class _SpikingJelly(IFNode):  # type: ignore[misc]
    def start(self, potential: Tensor) -> None:
        self.reset()
        self.v = potential


def neurons(layer: Layer) -> Neurons:
    """A layer of SpikingJelly's neurons.

    Raises:
        NetworkError: It has several thresholds, or values that it is reset to; or it fires above its threshold only.
    """
    if layer.strict:
        raise NetworkError(f"SpikingJelly fires at the threshold, and layer {layer.name!r} strictly above it.")
    threshold = uniform("SpikingJelly", layer, "threshold", layer.threshold)
    reset = None if layer.v_reset is None else uniform("SpikingJelly", layer, "value of the reset", layer.v_reset)
    made: Neurons = _SpikingJelly(v_threshold=threshold, v_reset=reset)
    return made
