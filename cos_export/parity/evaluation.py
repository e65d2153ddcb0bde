"""A run in float64: what every neuron's m(t) should have been, given the spikes that the run itself had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cos_export.network import NeuronSpec, SampleStates, SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.network.wires import Wires
from cos_export.parity.rounding import UNIT_ROUNDOFF, Bounded, added, bounded_synapse, exact
from cos_export.parity.row_blocks import row_blocks
from cos_export.simulation.fixed_point import quantise_input
from cos_export.simulation.input_train import input_train
from cos_export.simulation.neuron import channels_last, sample_blocks

__all__ = ["Charge", "Evaluation", "Neurons", "at_step", "input_values", "per_step"]


_KEPT = 2**20
"""Weights of a node that are in float64 at once, and are kept so from one batch to the next: 8 MiB."""


class Charge(NamedTuple):
    """A step of a layer for some samples of a batch.

    Attributes:
        block: Which samples.
        step: t, from 1.
        margin: m(t) - theta, (samples, ...).
        bound: How far rounding may take m(t), likewise; None where nothing is rounded.
        should: Whether the neuron fires by that margin.
        fired: Whether it did; of a neuron that is silenced, whose spikes nobody sees, whether it should have.
    """

    block: slice
    step: int
    margin: Tensor
    bound: Tensor | None
    should: Tensor
    fired: Tensor


class Neurons(NamedTuple):
    """A layer in float64; v_init and silent may carry a batch axis in front."""

    spec: NeuronSpec
    threshold: Tensor
    v_init: Tensor
    v_reset: Tensor | None
    silent: Tensor | None


class Evaluation:
    """A network in float64, each layer fed with the spikes that a run's layers fired.

    Sums of integers are exact. Of those of float32 numbers the rounding bound comes along (`rounding`).

    Args:
        network: What was run.
        steps: T.
    """

    def __init__(self, network: SpikingNetwork, steps: int) -> None:
        self.network = network
        self.steps = steps
        self.unit = UNIT_ROUNDOFF if network.quantisation is None else 0.0
        self._small: dict[tuple[str, int | None], Callable[[Bounded], Bounded]] = {}

    def walk(self, images: Tensor, spikes: Mapping[str, Tensor]) -> Iterator[tuple[str, list[Bounded]]]:
        """What arrives at each layer, and at the Output, in topological order.

        Args:
            images: (batch, ...) of float32.
            spikes: By layer, what it fired: (steps, batch, ...) of booleans. Of layers that nothing reads after the
                walk has been left, none are needed.

        Yields:
            The name, and (steps or 1, batch, ...) from each source.
        """
        network = self.network
        wires: Wires[Bounded] = Wires(network)
        for name, arriving in wires.walk():
            if name in network.neurons:
                yield name, arriving
                wires[name] = exact(spikes[name].to(torch.float64))
            elif not arriving:
                wires[name] = exact(input_train(network, input_values(network, images).value[0], self.steps))
            else:
                wires[name] = per_step(self._synapse(name), added(arriving, self.unit))
            if name == network.output_name:
                yield name, [wires.readout]

    def _synapse(self, name: str, *, steps: int | None = None) -> Callable[[Bounded], Bounded]:
        """What a node makes of a value and its error.

        Weights in float64 take two or three times what the network does: those of large nodes are made when they are
        needed, a block of rows of a matrix after the other, and are gone after it.
        """
        if (name, steps) in self._small:
            return self._small[name, steps]
        node = self.network.graph.nodes[name]
        blocks = row_blocks(node, _KEPT)
        if len(blocks) > 1:
            return lambda inputs: _side_by_side(bounded_synapse(b, self.unit, steps=steps)(inputs) for b in blocks)
        made = bounded_synapse(node, self.unit, steps=steps)
        weights = facts(node).weights
        if weights is None or np.size(getattr(node, weights)) <= _KEPT:
            self._small[name, steps] = made
        return made

    def neurons(self, name: str, states: SampleStates | None, chunk: slice) -> Neurons:
        """A layer as it ran for the samples of `chunk`, with the states that a per-sample method had set."""
        spec = self.network.neurons[name]
        v_init, silent = spec.v_init, spec.silent
        if states is not None:
            v_init = states.v_init[name][chunk] if name in states.v_init else v_init
            silent = states.silent[name][chunk] if name in states.silent else silent
        return Neurons(
            spec,
            _float64(spec.threshold),
            _float64(v_init),
            _float64(spec.v_reset) if spec.reset == "value" else None,
            None if silent is None else channels_last(torch.as_tensor(silent)),
        )

    def charges(self, neurons: Neurons, arriving: list[Bounded], spikes: Tensor) -> Iterator[Charge]:
        """Every step of a layer, for a few samples at a time.

        Args:
            neurons: The layer.
            arriving: Its currents, as `walk` gives them.
            spikes: (steps, batch, ...), what it fired.
        """
        spec, theta = neurons.spec, neurons.threshold
        table = spec.bias_per_step(len(spikes))
        start = neurons.v_init.expand(spikes.shape[1:])
        mask = None if neurons.silent is None else neurons.silent.expand(spikes.shape[1:])
        for block in sample_blocks(spikes):
            potential = Bounded(start[block], None)
            for t, seen in enumerate(spikes[:, block]):
                terms = [potential, *(at_step(part, t, block) for part in arriving)]
                if table is not None:
                    terms.append(exact(torch.from_numpy(table[t]).to(torch.float64).expand_as(start[block])))
                charged, bound = added(terms, self.unit)
                margin = charged - theta
                should = margin > 0 if spec.condition == ">" else margin >= 0
                # A silenced neuron goes on charging and firing unseen: its earlier spikes are what float64 says.
                fired = seen if mask is None else torch.where(mask[block], should, seen)
                yield Charge(block, t + 1, margin, bound, should, fired)
                potential = self._after(neurons, charged, margin, bound, fired)

    def _after(self, neurons: Neurons, charged: Tensor, margin: Tensor, bound: Tensor | None, fired: Tensor) -> Bounded:
        """v(t): one rounding more where theta is subtracted, and none left where a potential is reset to a value."""
        if neurons.v_reset is not None:
            left = torch.where(fired, neurons.v_reset, charged)
            return Bounded(left, None if bound is None else torch.where(fired, 0.0, bound))
        left = torch.where(fired, margin, charged)
        return Bounded(left, None if bound is None else bound + self.unit * (left.abs() + bound))


def input_values(network: SpikingNetwork, images: Tensor) -> Bounded:
    """What the Input sends in every step: (1, batch, ...)."""
    return exact(channels_last(quantise_input(images, network.quantisation).to(torch.float64)).unsqueeze(0))


def at_step(part: Bounded, t: int, block: slice = slice(None)) -> Bounded:
    """The step with index t = 0, 1, ... of a train (steps or 1, batch, ...)."""
    index = t if len(part.value) > 1 else 0
    return Bounded(part.value[index, block], None if part.error is None else part.error[index, block])


def per_step(evaluate: Callable[[Bounded], Bounded], inputs: Bounded) -> Bounded:
    """Applies a function over samples to a train (steps or 1, batch, ...)."""
    steps, batch = inputs.value.shape[:2]
    outputs = evaluate(
        Bounded(inputs.value.flatten(0, 1), None if inputs.error is None else inputs.error.flatten(0, 1))
    )
    shape = (steps, batch, *outputs.value.shape[1:])
    return Bounded(outputs.value.reshape(shape), None if outputs.error is None else outputs.error.reshape(shape))


def _side_by_side(parts: Iterable[Bounded]) -> Bounded:
    """What the blocks of a matrix have made of the same features, as what the matrix makes of them."""
    values, errors = zip(*parts, strict=True)
    found = [error for error in errors if error is not None]
    return Bounded(torch.cat(values, -1), torch.cat(found, -1) if found else None)


def _float64(array: object) -> Tensor:
    return channels_last(torch.as_tensor(array).to(torch.float64))
