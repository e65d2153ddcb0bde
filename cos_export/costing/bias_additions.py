"""What is added to potentials at every step beside weights: biases, and the current that an image makes once."""

from __future__ import annotations

from collections.abc import Iterator

import nir
import numpy as np
import torch
from torch import Tensor

from cos_export.costing.fan_out import input_kinds
from cos_export.costing.step_counts import StepCounts
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import bias_of, facts
from cos_export.simulation.synapses import synapse

__all__ = ["bias_additions"]


def bias_additions(counts: StepCounts, step: int, *, frames: bool) -> int:
    """The additions of one image until the first `step` steps of the readout are done.

    A bias that is not 0 of a synapse is added at each place of its output, the constant current of the Input once to
    each neuron and entry of the readout that takes any, a bias by step to each neuron of its channel.

    Args:
        counts: The steps of each node.
        step: Of the readout.
        frames: Whether the input is another one at each step, so that no current is constant.
    """
    return sum(_of_nodes(counts, step, frames)) + sum(_of_neurons(counts, step))


def _of_nodes(counts: StepCounts, step: int, frames: bool) -> Iterator[int]:
    network = counts.network
    constant = frozenset() if frames else _constant(network)
    for name in network.order:
        if name not in constant:
            yield _steps(counts, name, step) * _biased_places(network, name)
    rests = _rests(network, constant)
    for name in network.order:
        sources = network.predecessors[name]
        if name not in constant and not constant.isdisjoint(sources):
            steps = _steps(counts, name, step)
            # What biases make of nothing is left where the input is held for some steps alone.
            shown = min(steps, network.input_steps or steps)
            yield shown * int(np.prod(network.shapes[sources[0]]))
            if steps > shown:
                left = torch.stack([rests[source] for source in sources if source in constant]).sum(0)
                yield (steps - shown) * int(left.count_nonzero())


def _of_neurons(counts: StepCounts, step: int) -> Iterator[int]:
    for name, spec in counts.network.neurons.items():
        if spec.bias is not None:
            rho = 0 if counts.calibration is None else counts.calibration.rho
            runs = [rho] * counts.passes + [counts.run(name, step) + counts.later(name, step)]
            added = sum(int(np.count_nonzero(spec.bias[:steps])) for steps in runs)
            yield added * int(np.prod(spec.shape[1:]))


def _steps(counts: StepCounts, name: str, step: int) -> int:
    return counts.run(name, step) + counts.beside(name, step)


def _constant(network: SpikingNetwork) -> frozenset[str]:
    """The Input, and the nodes that send the same at every step because it alone feeds them."""
    kinds = input_kinds(network)
    ends = {*network.neurons, network.output_name}
    alone = {name for name, kind in kinds.items() if kind == "constant" and name not in ends}
    return frozenset({network.input_name, *alone})


def _rests(network: SpikingNetwork, constant: frozenset[str]) -> dict[str, Tensor]:
    """What the constant nodes send of an input of zeros."""
    rests: dict[str, Tensor] = {}
    for name in network.order if network.input_steps is not None else ():
        if name == network.input_name:
            rests[name] = torch.zeros(1, *network.input_shape, dtype=torch.float64)
        elif name in constant:
            arriving = torch.stack([rests[source] for source in network.predecessors[name]]).sum(0)
            rests[name] = synapse(network.graph.nodes[name], _doubles)(arriving)
    return rests


def _doubles(array: object) -> Tensor:
    return torch.as_tensor(np.asarray(array)).double()


def _biased_places(network: SpikingNetwork, name: str) -> int:
    node: nir.NIRNode = network.graph.nodes[name]
    if facts(node).kind != "synapse" or (bias := bias_of(node)) is None:
        return 0
    channels, *places = network.shapes[name]
    return int(np.count_nonzero(np.broadcast_to(bias, (channels,)))) * int(np.prod(places, dtype=np.int64))
