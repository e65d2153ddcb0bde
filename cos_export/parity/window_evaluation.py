"""A run of the layer-wise schedule in float64: what every neuron's m should have been, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cos_export.network import NeuronSpec
from cos_export.network.wires import Wires
from cos_export.parity.evaluation import Charge, Evaluation, Neurons, at_step, input_values, per_step
from cos_export.parity.rounding import Bounded, added, exact, gamma
from cos_export.simulation.input_train import input_train
from cos_export.simulation.neuron import sample_blocks

__all__ = ["WindowEvaluation"]


class WindowEvaluation(Evaluation):
    """A layer-wise network in float64, each layer fed with the number of spikes that a run's layers fired.

    The bound of the sum over a window holds for a backend that adds the T steps up, and for one that runs a synapse on
    their sum.

    Args:
        network: What was run.
        steps: T.
    """

    def walk(self, images: Tensor, spikes: Mapping[str, Tensor]) -> Iterator[tuple[str, list[Bounded]]]:
        """What arrives at each layer over its window, (1, batch, ...), and at the Output in each of its steps."""
        network, steps = self.network, self.steps
        wires: Wires[Bounded] = Wires(network)
        inputs = exact(input_train(network, input_values(network, images).value[0], steps))
        read: dict[str, Bounded] = {network.input_name: inputs}
        for name, arriving in wires.walk():
            if name in network.neurons:
                yield name, arriving
                fired = spikes[name].to(torch.float64)
                wires[name] = exact(fired.sum(0, keepdim=True))
                if name in network.layers_read_out:
                    read[name] = exact(fired)
            elif not arriving:
                wires[name] = self._input_over_window(inputs.value)
            else:
                total = added(arriving, self.unit, steps=steps)
                wires[name] = per_step(self._synapse(name, steps=steps), total)
        yield network.output_name, [self._read_out(network.output_name, read)]

    def _input_over_window(self, inputs: Tensor) -> Bounded:
        """T times what is held, or the sum of T frames, whose additions may round."""
        if len(inputs) == 1:
            return exact(inputs * self.steps)
        total = inputs.sum(0, keepdim=True)
        return Bounded(
            total, None if self.unit == 0 else gamma(self.steps, self.unit) * inputs.abs().sum(0, keepdim=True)
        )

    def charges(self, neurons: Neurons, arriving: list[Bounded], spikes: Tensor) -> Iterator[Charge]:
        """Every step of a layer's window, for a few samples at a time.

        In step k the margin is m - theta (1 + the spikes before it). One rounding for each spike that was subtracted,
        or one for the quotient m / theta from which a backend may count them, is allowed for.
        """
        spec, theta = neurons.spec, neurons.threshold
        start = neurons.v_init.expand(spikes.shape[1:])
        mask = None if neurons.silent is None else neurons.silent.expand(spikes.shape[1:])
        bias = self._bias(spec)
        for block in sample_blocks(spikes):
            terms = [exact(start[block]), *(at_step(part, 0, block) for part in arriving)]
            if bias is not None:
                terms.append(bias)
            charged, bound = added(terms, self.unit, steps=self.steps)
            if bound is not None:
                bound = bound + gamma(self.steps + 1, self.unit) * (charged.abs() + bound)
            spent = torch.zeros_like(charged)
            for k, seen in enumerate(spikes[:, block]):
                margin = charged - theta - spent
                should = margin > 0 if spec.condition == ">" else margin >= 0
                fired = seen if mask is None else torch.where(mask[block], should, seen)
                yield Charge(block, k + 1, margin, bound, should, fired)
                spent = spent + theta * fired

    def _bias(self, spec: NeuronSpec) -> Bounded | None:
        """The sum of the per-step bias over the window, whether it is rounded once or at every step."""
        table = spec.bias_per_step(self.steps)
        if table is None:
            return None
        exactly = torch.from_numpy(table).to(torch.float64)
        error = gamma(self.steps, self.unit) * exactly.abs().sum(0)
        return Bounded(exactly.sum(0), None if self.unit == 0 else error)

    def _read_out(self, name: str, outputs: dict[str, Bounded]) -> Bounded:
        """What leaves a node between the last neurons and the Output in each step; `outputs` is added to."""
        if name not in outputs:
            parts = [self._read_out(source, outputs) for source in self.network.predecessors[name]]
            steps = max(len(part.value) for part in parts)
            outputs[name] = per_step(self._synapse(name), added([_repeated(part, steps) for part in parts], self.unit))
        return outputs[name]


def _repeated(part: Bounded, steps: int) -> Bounded:
    """What is the same in every step, `steps` times."""
    shape = (steps, *part.value.shape[1:])
    return Bounded(part.value.expand(shape), None if part.error is None else part.error.expand(shape))
