"""The layer-wise schedule in PyTorch: a layer integrates all T steps of what feeds it, and then fires.

Synapses are linear, so one pass of each serves all T steps: what lies on a wire is the sum over the window, the
number of spikes n of each neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.simulation.input_train import input_train
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import Program, senders

__all__ = [
    "LayerwiseProgram",
    "WindowRun",
    "check_layerwise",
    "fire_in_window",
    "spike_counts",
    "spike_train",
    "window_charge",
]


def check_layerwise(network: SpikingNetwork) -> None:
    """Refuses neurons that a window has no meaning for.

    Raises:
        NetworkError: A layer is reset to a value, so that how often it fires is not said by what it integrated.
    """
    for name, spec in network.neurons.items():
        if spec.reset == "value":
            raise NetworkError(
                f"Layer {name!r} is reset to a value, and under the layer-wise schedule every spike takes one "
                'threshold from the potential. Read the graph with reset="subtract", or run it synchronously.'
            )


def spike_counts(charged: Tensor, neuron: NeuronTensors, steps: int) -> Tensor:
    """How often neurons fire in a window of T steps: n = clip(floor(m / theta), 0, T).

    With the strict comparison of other tools a neuron at a multiple of its threshold fires once less:
    n = clip(ceil(m / theta) - 1, 0, T).

    Args:
        charged: m = v_init + sum over the window of I(t) + beta(t), (batch, ...).
        neuron: The layer.
        steps: T.
    """
    ratio = charged / neuron.threshold
    whole = ratio.ceil_().sub_(1.0) if neuron.strict else ratio.floor_()
    return whole.clamp_(0.0, float(steps))


def spike_train(counts: Tensor, steps: int) -> Tensor:
    """The spikes of a window, s(k) = 1 if n >= k else 0 for k = 1..T: (steps, batch, ...) from (batch, ...)."""
    return _fired(counts, steps).to(counts.dtype)


def _fired(counts: Tensor, steps: int) -> Tensor:
    """`spike_train` as booleans."""
    number = torch.arange(1, steps + 1, device=counts.device, dtype=counts.dtype)
    return counts.unsqueeze(0) >= number.reshape(-1, *[1] * counts.ndim)


def window_charge(total: Tensor, neuron: NeuronTensors, steps: int) -> Tensor:
    """M = v_init + sum over the window of I(t) + beta(t): (batch, ...).

    Args:
        total: The sum over the window of I(t), (batch, ...).
        neuron: The layer.
        steps: T.
    """
    return total + _start(neuron, steps, total.ndim)


def _start(neuron: NeuronTensors, steps: int, axes: int) -> Tensor:
    """What a layer has before any current: v_init + sum over the window of beta(t)."""
    start = neuron.v_init
    if neuron.bias is None:
        return start
    # Summed in float64, so that every executor has the same float32 number.
    bias = neuron.bias[:steps].double().sum(0).to(start.dtype)
    return start + bias.reshape(-1, *[1] * (axes - 2))


@dataclass(frozen=True)
class WindowRun:
    """What a layer did in its window: how often each neuron fired, of which the rest follows.

    The train has T times as many numbers, and is made when it is asked for, each time anew.

    Attributes:
        counts: n, the spikes that left each neuron, (batch, ...) of the current's dtype.
        charged: M = v_init + sum over the window of I(t) + beta(t), (batch, ...).
        neuron: The layer.
        steps: T.
    """

    counts: Tensor
    charged: Tensor
    neuron: NeuronTensors
    steps: int

    @property
    def fired(self) -> Tensor:
        """The spikes as booleans, (steps, batch, ...)."""
        return _fired(self.counts, self.steps)

    @property
    def spikes(self) -> Tensor:
        """The spikes, (steps, batch, ...) of 0 and 1 in the current's dtype."""
        return spike_train(self.counts, self.steps)

    @property
    def residual(self) -> Tensor:
        """M - theta n, the potential that is left, (batch, ...); a silent neuron's too."""
        return self.charged - self.neuron.threshold * self._reset

    @property
    def potentials(self) -> Tensor:
        """What is left after each step of the window, (steps, batch, ...)."""
        return self.charged - self.neuron.threshold * spike_train(self._reset, self.steps).cumsum(0)

    @property
    def _reset(self) -> Tensor:
        """How often each neuron was reset: a silent one as well."""
        return spike_counts(self.charged, self.neuron, self.steps)


def fire_in_window(total: Tensor, neuron: NeuronTensors, steps: int) -> WindowRun:
    """What a layer does in its window.

    Args:
        total: The sum over it of I(t), (batch, ...), which is overwritten.
        neuron: The layer.
        steps: T.
    """
    charged = total.add_(_start(neuron, steps, total.ndim))
    counts = spike_counts(charged, neuron, steps)
    if neuron.silent is not None:
        counts *= neuron.silent.logical_not().to(counts.dtype)
    return WindowRun(counts, charged, neuron, steps)


class LayerwiseProgram:
    """A network of the layer-wise schedule, compiled for one device, dtype and T.

    Args:
        network: What to run.
        steps: T.
        device: Where.
        dtype: float32 is the reference.

    Raises:
        NetworkError: A layer's neurons have no layer-wise meaning.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        steps: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_layerwise(network)
        self.network, self.steps = network, steps
        self.summed = Program(network, device, dtype, window=steps)
        self.device = self.summed.device
        self._each = Program(network, device, dtype, nodes=senders(network, [network.output_name]))

    def run(
        self,
        images: Tensor,
        neurons: Callable[[str, NeuronTensors], NeuronTensors],
        observe: Callable[[str, WindowRun], None],
    ) -> Tensor:
        """Runs a batch.

        Args:
            images: (batch, ...), or frames (batch, steps, ...), of which a layer integrates the sum.
            neurons: From a layer's neurons to those of this run, whose states may have a batch axis.
            observe: Told what each layer fired in its window.

        Returns:
            What reaches the Output in each step of the readout's window, (steps or 1, batch, classes). A layer that
            reaches it by a shorter path arrives in step with the others: its first spike with their first.
        """
        read = self.network.layers_read_out
        trains: dict[str, Tensor] = {}

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            run = fire_in_window(currents[0], neurons(name, neuron), self.steps)
            observe(name, run)
            if name in read:
                trains[name] = run.spikes
            return run.counts.unsqueeze(0)

        self.summed.propagate(images, rule, self.steps)
        inputs = input_train(self.network, images, self.steps)
        return self._each.currents(self.network.output_name, lambda source: trains.get(source, inputs))
