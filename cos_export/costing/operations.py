"""Operations per image: what was counted, read at any step of the readout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cos_export.costing.bias_additions import bias_additions
from cos_export.costing.operation_counter import OperationCounter
from cos_export.costing.step_counts import StepCounts
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.simulation import PerSampleCalibration

__all__ = ["CountedRun", "Operations"]


@dataclass(frozen=True)
class Operations:
    """The mean over the images, for one image; NeuroBench's names where it has them.

    Attributes:
        spikes: Fired by all layers.
        effective_acs: Additions of a weight that is not 0 for a spike.
        effective_macs: Products of a weight and an analog value, neither of them 0. What the Input alone feeds is
            computed once.
        effective_macs_every_step: `effective_macs` where what the Input feeds is computed anew at every step.
        dense: Products of all weights and all values for each of the T steps, as if nothing were 0.
        pooling_additions: Values that the windows of pooling nodes add up.
        bias_additions: Of a bias, or of the constant current of the Input, at each step.
        presimulation: The part of `effective_acs` and `effective_macs` that a per-sample method spends beside the T
            steps: before the run, and after T where a layer fires on for those that are calibrated on it.
        neuron_updates: Comparisons of a potential with its threshold: neurons times steps.
        activation_sparsity: The share of neurons and steps of the run without a spike.
        by_node: `effective_acs` or `effective_macs` of each synapse.
    """

    spikes: float
    effective_acs: float
    effective_macs: float
    effective_macs_every_step: float
    dense: float
    pooling_additions: float
    bias_additions: float
    presimulation: float
    neuron_updates: int
    activation_sparsity: float
    by_node: Mapping[str, float]

    @property
    def synaptic_operations(self) -> float:
        """effective_acs + effective_macs."""
        return self.effective_acs + self.effective_macs


@dataclass(frozen=True)
class CountedRun:
    """A run whose operations were counted.

    Attributes:
        network: What ran.
        steps: T.
        counter: Of the run.
        calibration: The per-sample method, or None.
        before: Of the pre-simulation of all layers together, if the method has one.
    """

    network: SpikingNetwork
    steps: int
    counter: OperationCounter
    calibration: PerSampleCalibration | None = None
    before: OperationCounter | None = None

    def at(self, step: int) -> Operations:
        """The operations of one image until the first `step` steps of the readout are done.

        Which steps of each node that takes is said by `StepCounts`.
        """
        counter, layers, counts = self.counter, self.network.layers, self._step_counts
        run = {name: self._of_run(name, step) for name in counter.operations}
        beside = {name: self._of_calibration(name, step) for name in counter.operations}
        whole = {name: run[name] + beside[name] for name in run}
        accumulated, multiplied, pooled = (
            [name for name in whole if counter.kind(name) == kind] for kind in ("accumulate", "multiply", "pooling")
        )
        macs = sum(whole[name] for name in multiplied)
        again = sum(whole[name] * (self._shown(name, step) - 1) for name in multiplied if counter.once(name))
        fired = sum(float(counter.spikes[name][: counts.run(name, step)].sum()) for name in layers)
        sizes = {name: int(np.prod(self.network.shapes[name])) for name in layers}
        slots = sum(counts.run(name, step) * size for name, size in sizes.items())
        synapses = (*accumulated, *multiplied)
        return Operations(
            spikes=(fired + self._spikes_beside(step)) / counter.samples,
            effective_acs=sum(whole[name] for name in accumulated),
            effective_macs=macs,
            effective_macs_every_step=macs + again,
            dense=float(sum(_products(self.network, name) for name in synapses) * self.steps),
            pooling_additions=sum(whole[name] for name in pooled),
            bias_additions=float(bias_additions(counts, step, frames=counter.frames)),
            presimulation=sum(beside[name] for name in synapses),
            neuron_updates=slots + sum(counts.beside(name, step) * size for name, size in sizes.items()),
            activation_sparsity=1.0 - fired / (slots * counter.samples),
            by_node={name: whole[name] for name in synapses},
        )

    @cached_property
    def _step_counts(self) -> StepCounts:
        return StepCounts(self.network, self.steps, self.calibration)

    def _shown(self, name: str, step: int) -> int:
        """For how many steps a node that the Input alone feeds would compute anew."""
        run = self._step_counts.run(name, step)
        return min(run, self.network.input_steps or run) + self._step_counts.beside(name, step)

    def _of_run(self, name: str, step: int) -> float:
        """The operations of a node in the run, for one image."""
        counts = self.counter.operations[name]
        steps = 1 if self.counter.once(name) else self._step_counts.run(name, step)
        return float(counts[:steps].sum()) / self.counter.samples

    def _of_calibration(self, name: str, step: int) -> float:
        """Likewise beside the run. No readout is pre-simulated."""
        counts, steps = self.counter.operations[name], self._step_counts
        if self.calibration is None or name not in steps.feeding or self.counter.once(name):
            return 0.0
        if self.before is not None:
            return float(self.before.operations[name].sum()) / self.before.samples
        before, after = counts[: self.calibration.rho], counts[step : step + steps.later(name, step)]
        return float(steps.passes * before.sum() + after.sum()) / self.counter.samples

    def _spikes_beside(self, step: int) -> float:
        """The spikes of a pre-simulation of all layers; or those after `step` that a layer above is calibrated on."""
        if self.before is not None:
            return float(sum(counts.sum() for counts in self.before.spikes.values()))
        return float(
            sum(
                counts[step : step + self._step_counts.later(name, step)].sum()
                for name, counts in self.counter.spikes.items()
            )
        )


def _products(network: SpikingNetwork, name: str) -> int:
    """Products of one step, those with 0 among them."""
    return facts(network.graph.nodes[name]).terms * int(np.prod(network.shapes[name]))
