"""The layer-wise schedule in PyTorch: a layer integrates all T steps of what feeds it, and then fires.

Synapses are linear, so one pass of each serves all T steps: what lies on a wire is the sum over the window, the
number of spikes n of each neuron.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.simulation.input_train import input_train
from cos_export.simulation.neuron import NeuronTensors, Run
from cos_export.simulation.program import Program

__all__ = ["LayerwiseProgram", "check_layerwise", "integrate_then_fire", "spike_counts", "spike_train", "window_charge"]


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
    whole = torch.ceil(ratio).sub_(1.0) if neuron.strict else torch.floor(ratio)
    return whole.clamp_(0.0, float(steps))


def spike_train(counts: Tensor, steps: int) -> Tensor:
    """The spikes of a window, s(k) = 1 if n >= k else 0 for k = 1..T: (steps, batch, ...) from (batch, ...)."""
    number = torch.arange(1, steps + 1, device=counts.device, dtype=counts.dtype)
    return (counts.unsqueeze(0) >= number.reshape(-1, *[1] * counts.ndim)).to(counts.dtype)


def window_charge(total: Tensor, neuron: NeuronTensors, steps: int) -> Tensor:
    """M = v_init + sum over the window of I(t) + beta(t): (batch, ...).

    Args:
        total: The sum over the window of I(t), (batch, ...).
        neuron: The layer.
        steps: T.
    """
    start = neuron.v_init
    if neuron.bias is not None:
        # Summed in float64, so that every executor has the same float32 number.
        bias = neuron.bias[:steps].double().sum(0).to(start.dtype)
        start = start + bias.reshape(-1, *[1] * (total.ndim - 2))
    return total + start


def integrate_then_fire(currents: Tensor, steps: int, neuron: NeuronTensors) -> Run:
    """Runs a layer over a train of currents: it integrates all of it, and then fires in a window of as many steps.

    Args:
        currents: I, (steps, batch, ...), or (1, batch, ...) if it is the same at every step.
        steps: T.
        neuron: The layer.
    """
    total = currents[:steps].sum(0) if len(currents) > 1 else currents[0] * float(steps)
    run, _ = _fire_in_window(total, neuron, steps, record_potentials=False)
    return run


def _fire_in_window(total: Tensor, neuron: NeuronTensors, steps: int, *, record_potentials: bool) -> tuple[Run, Tensor]:
    """What a layer does in its window, and the number of spikes that leave each neuron, (batch, ...)."""
    charged = window_charge(total, neuron, steps)
    counts = spike_counts(charged, neuron, steps)
    train = spike_train(counts, steps)
    left = charged - neuron.threshold * train.cumsum(0) if record_potentials else None
    residual = charged - neuron.threshold * counts
    if neuron.silent is not None:
        audible = neuron.silent.logical_not().to(counts.dtype)
        counts, train = counts * audible, train * audible
    return Run(train, residual, left), counts


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
        self._each = Program(network, device, dtype)

    def run(
        self,
        images: Tensor,
        neurons: Callable[[str, NeuronTensors], NeuronTensors],
        observe: Callable[[str, Run], None],
        *,
        record_potentials: bool = False,
    ) -> Tensor:
        """Runs a batch.

        Args:
            images: (batch, ...), or frames (batch, steps, ...), of which a layer integrates the sum.
            neurons: From a layer's neurons to those of this run, whose states may have a batch axis.
            observe: Told what each layer fired in its window.
            record_potentials: Whether the runs that `observe` is told of have potentials.

        Returns:
            What reaches the Output in each step of the readout's window, (steps or 1, batch, classes). A layer that
            reaches it by a shorter path arrives in step with the others: its first spike with their first.
        """
        read = self.network.layers_read_out
        trains: dict[str, Tensor] = {}

        def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
            neuron = neurons(name, neuron)
            run, counts = _fire_in_window(currents[0], neuron, self.steps, record_potentials=record_potentials)
            observe(name, run)
            if name in read:
                trains[name] = run.spikes
            return counts.unsqueeze(0)

        self.summed.propagate(images, rule, self.steps)
        inputs = input_train(self.network, images, self.steps)
        return self._each.currents(self.network.output_name, lambda source: trains.get(source, inputs))
