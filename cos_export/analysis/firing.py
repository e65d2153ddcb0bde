"""A layer as it spikes in T steps under either schedule, beside what it would answer without spikes."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_export.network import SampleStates, SpikingNetwork
from cos_export.simulation.layerwise import check_layerwise, spike_counts, window_charge
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire, with_states
from cos_export.simulation.program import Program

__all__ = ["Firing", "quantised_counts", "total_current"]


class Firing:
    """A network of one schedule on a device, for T steps.

    What lies on a wire is the spike of each step where layers fire all at once, and the sum of a window where they fire
    one after the other, as in `cos_export.simulation.simulate`.

    Attributes:
        single: The program of one pass with activations on the wires.
        window: The program whose wires carry sums over T steps.
        spiking: That of the two in which the layers fire.

    Args:
        network: What to run.
        steps: T.
        device: Where.

    Raises:
        NetworkError: The schedule is layer-wise, and a layer is reset to a value.
    """

    def __init__(self, network: SpikingNetwork, steps: int, device: torch.device) -> None:
        self.network, self.steps = network, steps
        self.layerwise = network.schedule == "layerwise"
        if self.layerwise:
            check_layerwise(network)
        self.single = Program(network, device)
        self.window = Program(network, device, window=steps)
        self.spiking = self.window if self.layerwise else self.single
        self.device = self.single.device

    def neuron(self, name: str, states: SampleStates | None) -> NeuronTensors:
        """A layer's neurons, with the states of each sample if a per-sample method has set them."""
        return with_states(self.single.neurons[name], name, states, self.device)

    def total(self, currents: Tensor) -> Tensor:
        """The sum over T steps of what arrives at a layer of `spiking`: (batch, ...)."""
        return currents[0] if self.layerwise else total_current(currents, self.steps)

    def spikes(self, currents: Tensor, neuron: NeuronTensors) -> tuple[Tensor, Tensor]:
        """What a layer of `spiking` sends on, (steps or 1, batch, ...), and its rate n / T, (batch, ...).

        Args:
            currents: What arrives at it, (steps or 1, batch, ...), which is overwritten.
            neuron: The layer.
        """
        if self.layerwise:
            counts = _counts(currents[0], neuron, self.steps)
            return counts.unsqueeze(0), counts / float(self.steps)
        spikes = integrate_and_fire(currents, self.steps, neuron, overwrite=True).spikes
        return spikes, spikes.sum(0) / float(self.steps)

    def rate_of_constant(self, current: Tensor, neuron: NeuronTensors) -> Tensor:
        """The rate n / T of a layer under a current (batch, ...) that is the same in all T steps."""
        if self.layerwise:
            return _counts(current * float(self.steps), neuron, self.steps) / float(self.steps)
        return integrate_and_fire(current.unsqueeze(0), self.steps, neuron).spikes.sum(0) / float(self.steps)

    def outputs(self, rate: Tensor) -> Tensor:
        """A rate (batch, ...) as it lies on a wire of `spiking`: (1, batch, ...)."""
        return (rate * float(self.steps) if self.layerwise else rate).unsqueeze(0)

    def logits(self, outputs: Tensor) -> Tensor:
        """The mean readout of T steps, from what reaches the Output in `spiking`: (batch, classes)."""
        return self.total(outputs) / float(self.steps) * self.single.readout_scale


def _counts(total: Tensor, neuron: NeuronTensors, steps: int) -> Tensor:
    """How many spikes of a layer leave it in its window."""
    counts = spike_counts(window_charge(total, neuron, steps), neuron, steps)
    return counts if neuron.silent is None else counts * neuron.silent.logical_not().to(counts.dtype)


def total_current(currents: Tensor, steps: int) -> Tensor:
    """The sum over T steps of a current (steps, batch, ...), or of (1, batch, ...) that is the same in all."""
    return currents.sum(0) if len(currents) > 1 else currents[0] * float(steps)


def quantised_counts(total: Tensor, neuron: NeuronTensors, steps: int) -> Tensor:
    """The spikes n = T a / theta that QCFS with L = T levels asks for, from the sum over T steps of the current z.

        n = clip( floor(z T / theta + 1/2), 0, T )

    The sums are those of a layer-wise run from v_init = theta / 2, which thus agrees to the bit.

    Args:
        total: T z, (batch, ...).
        neuron: The layer, of which only the threshold counts.
        steps: T.
    """
    half = neuron.threshold / 2
    return spike_counts(total + half, NeuronTensors(neuron.threshold, half, False, None, None, None, None), steps)
