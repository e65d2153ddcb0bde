"""The readout of a lowered network: its mean over all steps is the layer-wise one's over its window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.order import successors
from cos_export.numerics import WEIGHT_BITS, signed_range
from cos_export.quantisation.groups import free_name

__all__ = ["IntegerBias", "integer_bias", "with_readout"]


@dataclass(frozen=True)
class IntegerBias:
    """An integer bias that counts T times, as one that counts in all T' steps and a rest that counts once.

        T c = T' every + once,     |once| <= T' / 2

    Attributes:
        every: (classes,), of each step.
        once: (classes,).
    """

    every: NDArray[np.float64]
    once: NDArray[np.float64]


def integer_bias(constant: NDArray[np.float64], steps: int, total: int) -> IntegerBias:
    """The constant current of the readout over T of T' steps.

    Args:
        constant: c, (classes,) of integers.
        steps: T.
        total: T'.
    """
    every = np.rint(steps * constant / total)
    return IntegerBias(every, steps * constant - total * every)


def with_readout(network: SpikingNetwork, constant: NDArray[np.float64], steps: int, total: int) -> SpikingNetwork:
    """The network, whose mean over T' steps is what the layer-wise one's is over T.

    With the sum S of what the last synapse makes of all spikes, and its constant current c, the logits are
    S / T + c. The mean over T' steps of (T' / T) W s + c is just that; in integers T' / T goes into readout_scale, and
    T c is a bias of all steps and a rest, which neurons that fire once bring.

    Args:
        network: With no biases.
        constant: c, of the Output's shape.
        steps: T.
        total: T'.

    Raises:
        NetworkError: What feeds the Output is not one synapse of its own.
    """
    (name, *others), output = network.predecessors[network.output_name], network.output_name
    node = network.graph.nodes[name]
    if others or not isinstance(node, nir.Affine | nir.Linear) or successors(network.graph)[name] != (output,):
        raise NetworkError(
            f"Node {name!r} ({type(node).__name__}) feeds the Output {output!r}"
            f"{' with others' if others else ''}, and the mean over more steps must be folded into one Affine or "
            "Linear that feeds the Output alone. Put such a node there."
        )
    weight = np.asarray(node.weight, np.float64)
    if network.quantisation is None:
        weight, bias = weight * (total / steps), constant
    else:
        parts = integer_bias(constant, steps, total)
        bias = parts.every
        scale = float(np.float32(network.quantisation.readout_scale * total / steps))
        network = replace(network, quantisation=replace(network.quantisation, readout_scale=scale))
        network = _with_rest(network, parts.once)
    metadata = {"metadata": node.metadata}
    head = nir.Affine(weight.astype(np.float32), bias.astype(np.float32), **metadata)
    return network.with_nodes({name: head})


def _with_rest(network: SpikingNetwork, once: NDArray[np.float64]) -> SpikingNetwork:
    """Adds neurons without inputs that fire in step 1 and bring `once` to the Output, in the weights' bits."""
    if not once.any():
        return network
    _, largest = signed_range(WEIGHT_BITS if network.quantisation is None else network.quantisation.weight_bits)
    count = int(np.ceil(np.abs(once).max() / largest))
    weights = np.stack([np.trunc((once * (k + 1)) / count) - np.trunc((once * k) / count) for k in range(count)], 1)
    candidates = sorted(network.layers_read_out, key=lambda name: (int(np.prod(network.shapes[name])), name))
    source = candidates[0] if candidates else network.input_name
    shape = network.shapes[source]
    one = np.ones(count, np.float32)
    spec = NeuronSpec(threshold=one, v_init=one + np.float32(0.5))
    chain = {
        "flatten": nir.Flatten({"input": np.array(shape)}, 0, -1),
        "nothing": nir.Linear(np.zeros((count, int(np.prod(shape))), np.float32)),
        "once": nir.IF(one, one),
        "rest": nir.Linear(weights.astype(np.float32)),
    }
    if len(shape) == 1:
        del chain["flatten"]
    names = {kind: free_name(network.graph.nodes, f"{network.output_name}_{kind}") for kind in chain}
    nodes = {**network.graph.nodes, **{names[kind]: node for kind, node in chain.items()}}
    path = [source, *names.values(), network.output_name]
    edges = [*network.graph.edges, *pairwise(path)]
    graph = nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False)
    return replace(network, graph=graph, neurons={**network.neurons, names["once"]: spec})
