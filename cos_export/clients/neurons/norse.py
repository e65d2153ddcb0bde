"""Neurons of norse: `IAFCell`, whose activation resets by subtraction where its own resets to a value."""

from __future__ import annotations

from norse.torch.functional.iaf import IAFFeedForwardState, IAFParameters, iaf_feed_forward_step
from norse.torch.functional.threshold import threshold
from norse.torch.module.iaf import IAFCell
from torch import Tensor

from cos_export.clients.neurons.layer import Neurons, tensor
from cos_export.clients.nir_graph import Layer
from cos_export.errors import NetworkError

__all__ = ["neurons"]


def _soft_reset(
    current: Tensor, state: IAFFeedForwardState, parameters: IAFParameters, dt: float
) -> tuple[Tensor, IAFFeedForwardState]:
    charged = state.v + current
    # norse's threshold is 1 strictly above 0, so that 1 - threshold(theta - m) is 1 for m >= theta.
    spikes = 1 - threshold(parameters.v_th - charged, parameters.method, parameters.alpha)
    return spikes, IAFFeedForwardState(v=charged - spikes * parameters.v_th)


class _Norse(IAFCell):  # type: ignore[misc]
    threshold: Tensor
    v_reset: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__(dt=1.0)
        self.register_buffer("threshold", tensor(layer.threshold))
        by_value = layer.v_reset is not None
        self.register_buffer("v_reset", tensor(layer.threshold * 0 if layer.v_reset is None else layer.v_reset))
        self.activation = iaf_feed_forward_step if by_value else _soft_reset

    def start(self, potential: Tensor) -> None:
        self.p = IAFParameters(v_th=self.threshold, v_reset=self.v_reset)
        self._state = IAFFeedForwardState(v=potential)

    def forward(self, current: Tensor) -> Tensor:
        spikes: Tensor
        spikes, self._state = super().forward(current, self._state)
        return spikes


def neurons(layer: Layer) -> Neurons:
    """A layer of norse's neurons.

    Raises:
        NetworkError: It combines a reset and a comparison that norse does not: reset by subtraction comes with >=, and
            to a value with >.
    """
    if layer.strict == (layer.v_reset is None):
        way = "to a value and fires at its threshold" if layer.v_reset is not None else "by subtraction and fires above"
        raise NetworkError(f"norse's neurons do not do what layer {layer.name!r} does: it is reset {way} it.")
    made: Neurons = _Norse(layer)
    return made
