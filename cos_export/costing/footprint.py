"""Bytes: of what a network keeps, and of what it changes while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import bias_of, facts
from cos_export.numerics import FLOAT32, NUMERICS, WEIGHT_BITS, numerics_of
from cos_export.simulation import PerSampleCalibration

__all__ = ["Footprint", "activation_bits", "footprint", "weight_bytes"]

NUMBER_BYTES = {name: 4 if bits is None else -(-bits // 8) for name, bits in NUMERICS.items()}
"""Of one weight, by numerics."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a network.

    Attributes:
        weights_float32: Of all weights, zeros among them.
        weights_int8: Likewise, one byte each.
        biases: Four bytes each, in both numerics; biases of each step among them.
        neurons: Thresholds and initial potentials, four bytes each, as the files hold them: one of each per neuron.
        potentials: State: a potential for each neuron and a sum for each entry of the readout, four bytes each.
        counts: State of an executor that adds up the window of a layer: ceil(log2(T + 1)) bits for each neuron; 0 under
            the synchronous schedule.
        presimulation: State of a per-sample method: v_init of each neuron, or its silence, of one sample, and the
            spikes that are replayed, one bit each.
        connection_sparsity: The share of weights that are 0.
    """

    weights_float32: int
    weights_int8: int
    biases: int
    neurons: int
    potentials: int
    counts: int
    presimulation: int
    connection_sparsity: float

    def parameters(self, numerics: str) -> int:
        """NeuroBench's footprint: all that the network keeps, in bytes."""
        weights = self.weights_float32 if numerics == FLOAT32 else self.weights_int8
        return weights + self.biases + self.neurons

    @property
    def state(self) -> int:
        """All that changes while one sample runs, in bytes."""
        return self.potentials + self.counts + self.presimulation


def weight_bytes(numerics: str) -> int:
    """Bytes of one weight, which are those of one number of the input."""
    return (NUMERICS[numerics] or 32) // 8


def activation_bits(steps: int) -> int:
    """ceil(log2(T + 1)): the bits of a number of spikes, 0..T."""
    return math.ceil(math.log2(steps + 1))


def footprint(network: SpikingNetwork, steps: int, calibration: PerSampleCalibration | None = None) -> Footprint:
    """The bytes of a network that runs T = `steps` steps of one sample."""
    weights = zeros = biases = 0
    for name in network.order:
        node = network.graph.nodes[name]
        field, bias = facts(node).weights, bias_of(node)
        if field is not None:
            array = np.asarray(getattr(node, field))
            weights, zeros = weights + array.size, zeros + int((array == 0).sum())
        biases += 0 if bias is None else bias.size
    biases += sum(spec.bias.size for spec in network.neurons.values() if spec.bias is not None)
    neurons, outputs = network.neuron_count, int(np.prod(network.output_shape))
    layerwise = network.schedule == "layerwise"
    presimulation = 0
    if calibration is not None:
        if calibration.presimulated(network) is not None:
            presimulation = math.ceil(neurons / 8)
        else:
            presimulation = 4 * neurons + math.ceil(max(steps, calibration.rho) * neurons / 8)
    return Footprint(
        weights_float32=NUMBER_BYTES[FLOAT32] * weights,
        weights_int8=NUMBER_BYTES[numerics_of(WEIGHT_BITS)] * weights,
        biases=4 * biases,
        neurons=8 * neurons,
        potentials=4 * (neurons + outputs),
        counts=math.ceil(activation_bits(steps) * neurons / 8) if layerwise else 0,
        presimulation=presimulation,
        connection_sparsity=zeros / weights if weights else 0.0,
    )
