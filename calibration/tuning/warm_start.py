"""What a calibration by gradient goes on from where it does not start anew: the same network, calibrated before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cos_export.errors import InputError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.node_facts import facts

__all__ = ["warm_start"]


def warm_start(start: SpikingNetwork, network: SpikingNetwork, steps: int) -> SpikingNetwork:
    """`start` for T = `steps`, whatever T it was calibrated for.

    Weights, thresholds and potentials stay. Of biases of each step the first T stay, and the last one goes on where
    they are fewer.

    Args:
        start: The network as another calibration has left it.
        network: The network as it was given.
        steps: T.

    Raises:
        InputError: The two are not the same network but for their numbers.
    """
    _check_same(start, network)
    changed = {
        name: replace(spec, bias=_for_steps(spec.bias, steps))
        for name, spec in start.neurons.items()
        if spec.bias is not None
    }
    return start.with_neurons(changed)


def _for_steps(bias: FloatArray, steps: int) -> FloatArray:
    return bias[np.minimum(np.arange(steps), len(bias) - 1)]


def _check_same(start: SpikingNetwork, network: SpikingNetwork) -> None:
    """Refuses a start that differs in more than the numbers which are tuned."""
    if start.numerics != network.numerics:
        raise InputError(f"The start is a network of {start.numerics}, and the one to calibrate of {network.numerics}.")
    if start.quantisation != network.quantisation:
        raise InputError("The start was quantised with other scales than the network to calibrate.")
    for name in sorted(set(start.graph.nodes) | set(network.graph.nodes)):
        there, here = _about(start, name), _about(network, name)
        if there != here:
            raise InputError(f"The start is another network: node {name!r} is {there} there, and {here} here.")
    edges = {tuple(edge) for edge in start.graph.edges} ^ {tuple(edge) for edge in network.graph.edges}
    if edges:
        source, end = min(edges)
        raise InputError(f"The start is another network: only one of the two leads from {source!r} to {end!r}.")


def _about(network: SpikingNetwork, name: str) -> str:
    """The kind of a node, the shape of its weights, how it moves them, and the shape of what it gives."""
    node = network.graph.nodes.get(name)
    if node is None:
        return "absent"
    known = facts(node)
    weights = f" of weights {np.shape(getattr(node, known.weights))}" if known.weights is not None else ""
    moved = f" {known.geometry}" if known.geometry is not None else ""
    return f"{type(node).__name__}{weights}{moved} to {network.shapes[name]}"
