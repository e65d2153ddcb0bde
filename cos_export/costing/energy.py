"""Energy by the usual figures, and the memory traffic that they leave out."""

from __future__ import annotations

from dataclasses import dataclass

from cos_export.costing.fan_out import input_kinds
from cos_export.costing.footprint import activation_bits, weight_bytes
from cos_export.costing.operations import CountedRun, Operations
from cos_export.network import SpikingNetwork

__all__ = ["ENERGY_MODEL", "PICOJOULES_PER_ADDITION", "PICOJOULES_PER_MAC"]
__all__ += ["ArtificialCosts", "Energy", "artificial_costs", "energy"]

PICOJOULES_PER_MAC = 4.6
"""Of a float32 multiplication (3.7) and addition (0.9) in 45 nm: Horowitz, "Computing's energy problem", ISSCC 2014."""

PICOJOULES_PER_ADDITION = 0.9
"""Of a float32 addition in 45 nm, from there."""

ENERGY_MODEL = "analytical: 4.6 pJ per MAC, 0.9 pJ per addition (45 nm, Horowitz, ISSCC 2014), without memory traffic"
"""What stands beside every figure."""

WEIGHT_BITS, INPUT_BITS, GRADED_BITS = 8, 8, 32
"""Of the networks whose bit operations are compared; a value that a synapse has made of spikes is a whole sum."""


@dataclass(frozen=True)
class Energy:
    """Analytical: counts times a figure for each arithmetic operation, and no measurement of any device.

    Attributes:
        picojoules: 4.6 for each effective MAC; 0.9 for each effective AC, and addition of pooling and of biases.
        picojoules_every_step: Likewise where what the Input feeds is computed anew at every step.
        memory_traffic: Bytes that are read and written if nothing stays in a cache; no energy is made of them. Each
            operation reads a weight, and reads and writes a potential; each neuron does so at every step once more. A
            MAC reads a value as well, four bytes of what a synapse has made of spikes.
    """

    picojoules: float
    picojoules_every_step: float
    memory_traffic: float


@dataclass(frozen=True)
class ArtificialCosts:
    """The artificial network whose activations have as many levels as a neuron can have counts, for one image.

    Attributes:
        activation_bits: ceil(log2(T + 1)).
        macs: Products of a weight that is not 0, and any activation.
        effective_macs: Those with an activation that is not 0: of neurons that fired at all in T steps.
        bit_operations: `macs`, each times 8 bits of the weight and the bits of the activation; 8 of the image, 32 of
            what another synapse sends without an activation between.
        effective_bit_operations: Likewise of `effective_macs`.
        spiking_bit_operations: Of the spiking network: 8 for each AC, and 8 times the bits of the value for each MAC.
        picojoules: 4.6 for each of `macs`, which is arithmetic in float32.
        effective_picojoules: Likewise of `effective_macs`.
        memory_traffic: Bytes as for `Energy.memory_traffic`, for `macs`: each reads a weight and an activation; sums
            stay in a register, and each activation is written once.
    """

    activation_bits: int
    macs: int
    effective_macs: float
    bit_operations: int
    effective_bit_operations: float
    spiking_bit_operations: float
    picojoules: float
    effective_picojoules: float
    memory_traffic: float


def energy(network: SpikingNetwork, operations: Operations) -> Energy:
    """The energy of one image by the usual figures, and its memory traffic."""
    additions = operations.effective_acs + operations.pooling_additions + operations.bias_additions
    total = PICOJOULES_PER_ADDITION * additions + PICOJOULES_PER_MAC * operations.effective_macs
    again = operations.effective_macs_every_step - operations.effective_macs
    potential, weight, bias = 8, weight_bytes(network.numerics), 4
    value = {"constant": weight, "spikes": 0, "graded": GRADED_BITS // 8}
    kinds = input_kinds(network)
    traffic = (
        (weight + potential) * operations.synaptic_operations
        + sum(value[kinds[name]] * count for name, count in operations.by_node.items())
        + potential * (operations.pooling_additions + operations.neuron_updates)
        + (bias + potential) * operations.bias_additions
    )
    return Energy(total, total + PICOJOULES_PER_MAC * again, traffic)


def artificial_costs(counted: CountedRun, operations: Operations) -> ArtificialCosts:
    """The artificial network beside a run that was counted with its activity."""
    network, counter, bits = counted.network, counted.counter, activation_bits(counted.steps)
    macs = {name: counter.products(name) for name in counter.artificial}
    effective = {name: count / counter.samples for name, count in counter.artificial.items()}
    # Frames are as wide as an image that is held.
    kinds = input_kinds(network)
    value = {"constant": INPUT_BITS, "graded": GRADED_BITS}
    width = {name: WEIGHT_BITS * value.get(kinds[name], bits) for name in macs}
    spiking = sum(count * WEIGHT_BITS * value.get(kinds[name], 1) for name, count in operations.by_node.items())
    total = sum(macs.values())
    active = sum(effective.values())
    reads = sum(macs[name] * (weight_bytes(network.numerics) + width[name] / WEIGHT_BITS / 8) for name in macs)
    return ArtificialCosts(
        activation_bits=bits,
        macs=total,
        effective_macs=active,
        bit_operations=sum(macs[name] * width[name] for name in macs),
        effective_bit_operations=sum(effective[name] * width[name] for name in macs),
        spiking_bit_operations=spiking,
        picojoules=PICOJOULES_PER_MAC * total,
        effective_picojoules=PICOJOULES_PER_MAC * active,
        memory_traffic=reads + network.neuron_count * bits / 8,
    )
