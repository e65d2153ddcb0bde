"""What Loihi 2 can hold of a network of integers, layer by layer.

The limits are those that the fixed-point models of lava-nc 0.10.0 state: a threshold is a mantissa of 17 bits times
2^6, a bias a signed mantissa of 13 bits times 2^0..2^7, a synaptic input has 16 bits before it is shifted by 6 as
well, a potential has 24 bits, and a weight has 8 bits, of which one of mixed sign loses the lowest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import bias_of, facts, weight_field
from cos_export.quantisation.ranges import LayerRange, check_ranges

__all__ = ["LoihiLayer", "loihi_report"]

THRESHOLD_BITS, INPUT_BITS, MANTISSA_BITS, EXPONENTS, SHIFT = 17, 16, 13, 8, 6


@dataclass(frozen=True)
class LoihiLayer:
    """One layer, or the readout, beside the limits of Loihi 2.

    Attributes:
        range: What can occur in it.
        bias_exponent: The least exponent with which every bias has a mantissa of 13 bits, None if none is enough.
        biases_rounded: Biases that this exponent cannot hold exactly.
        odd_weights: Weights that would lose their lowest bit in a synapse of mixed sign. Twice every integer of the
            layer (weights, biases, thresholds, potentials) avoids it, where the thresholds leave a bit.
        exceeded: Which limits it exceeds, in words.
    """

    range: LayerRange
    bias_exponent: int | None
    biases_rounded: int
    odd_weights: int
    exceeded: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it exceeds no limit."""
        return not self.exceeded

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"range": self.range.to_dict(), "exceeded": list(self.exceeded), "fits": self.fits}


def loihi_report(network: SpikingNetwork, steps: int, *, per_sample: bool = False) -> tuple[LoihiLayer, ...]:
    """Every layer and the readout beside the limits of Loihi 2.

    Args:
        network: Of integers.
        steps: T.
        per_sample: Whether each sample sets initial potentials of its own.

    Raises:
        InputError: It is not a network of integers.
        NetworkError: Its own ranges do not fit.
    """
    return tuple(_layer(network, entry) for entry in check_ranges(network, steps, per_sample=per_sample))


def _layer(network: SpikingNetwork, entry: LayerRange) -> LoihiLayer:
    biases = _biases(network, entry.name)
    exponent = next((e for e in range(EXPONENTS) if _mantissas_fit(biases, e)), None)
    rounded = 0 if exponent is None else int((np.mod(biases, 2**exponent) != 0).sum())
    exceeded = []
    if entry.threshold_maximum >= 2**THRESHOLD_BITS:
        exceeded.append(f"a threshold of {entry.threshold_maximum:,} in {THRESHOLD_BITS} bits")
    if max(-entry.current_minimum, entry.current_maximum) >= 2 ** (INPUT_BITS - 1):
        exceeded.append(f"a current of {entry.current_minimum:,}..{entry.current_maximum:,} in {INPUT_BITS} bits")
    if max(-entry.potential_minimum, entry.potential_maximum) >= 2 ** (23 - SHIFT):
        # A threshold counts 2^6 times, so potentials do as well.
        exceeded.append(f"potentials of {24 - SHIFT} bits with their sign, which saturate")
    if exponent is None:
        exceeded.append(f"a bias of {entry.bias_largest:,} in {MANTISSA_BITS} bits times 2^{EXPONENTS - 1}")
    return LoihiLayer(entry, exponent, rounded, _odd_weights(network, entry.name), tuple(exceeded))


def _mantissas_fit(biases: NDArray[np.float64], exponent: int) -> bool:
    mantissas = np.rint(biases / 2**exponent)
    half = 2 ** (MANTISSA_BITS - 1)
    return bool(np.all((mantissas >= -half) & (mantissas < half)))


def _biases(network: SpikingNetwork, name: str) -> NDArray[np.float64]:
    """All biases that a neuron of the layer may integrate, those of its synapses added up."""
    arrays = [np.zeros(1)]
    total: NDArray[np.float64] = np.zeros(1)
    for source in network.predecessors[name]:
        node = network.graph.nodes[source]
        bias = bias_of(node)
        if bias is not None:
            total = total + bias.astype(np.float64)
    spec = network.neurons.get(name)
    arrays.append(total if spec is None or spec.bias is None else (total + spec.bias).ravel())
    return np.concatenate([array.ravel() for array in arrays])


def _odd_weights(network: SpikingNetwork, name: str) -> int:
    count = 0
    for source in network.predecessors[name]:
        node = network.graph.nodes[source]
        if facts(node).weighted:
            weight = np.asarray(getattr(node, weight_field(node)))
            if weight.min() < 0 < weight.max():
                count += int((np.mod(weight, 2) != 0).sum())
    return count
