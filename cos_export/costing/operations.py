"""Operations per image: what was counted, read at any step of the readout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.costing.operation_counter import OperationCounter, feeding_neurons
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import bias_of, facts
from cos_export.network.order import successors
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
        presimulation: The part of `effective_acs` and `effective_macs` that a per-sample method spends before the run.
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

        Under the layer-wise schedule all layers have fired for T steps before. A method that pre-simulates layer by
        layer has sent each layer the first rho steps of its input, once for each iteration, before it runs on all.
        """
        counter, layers = self.counter, self.network.layers
        run = {name: self._of_run(name, step) for name in counter.operations}
        before = {name: self._of_presimulation(name) for name in counter.operations}
        whole = {name: run[name] + before[name] for name in run}
        accumulated, multiplied, pooled = (
            [name for name in whole if counter.kind(name) == kind] for kind in ("accumulate", "multiply", "pooling")
        )
        macs = sum(whole[name] for name in multiplied)
        shown = min(step, self.network.input_steps or step)
        again = sum(whole[name] for name in multiplied if counter.once(name)) * (shown + self._extra - 1)
        fired = sum(float(counter.spikes[name][: self._steps_of(name, step)].sum()) for name in layers)
        sizes = {name: int(np.prod(self.network.shapes[name])) for name in layers}
        slots = sum(self._steps_of(name, step) * size for name, size in sizes.items())
        synapses = (*accumulated, *multiplied)
        return Operations(
            spikes=(fired + self._spikes_beside(step)) / counter.samples,
            effective_acs=sum(whole[name] for name in accumulated),
            effective_macs=macs,
            effective_macs_every_step=macs + again,
            dense=float(sum(_products(self.network, name) for name in synapses) * self.steps),
            pooling_additions=sum(whole[name] for name in pooled),
            bias_additions=float(sum(self._bias_additions(step))),
            presimulation=sum(before[name] for name in synapses),
            neuron_updates=slots + self._extra * sum(sizes.values()),
            activation_sparsity=1.0 - fired / (slots * counter.samples),
            by_node={name: whole[name] for name in synapses},
        )

    @property
    def artificial_effective_macs(self) -> float:
        """Products of a weight and an activation, neither of them 0, in the artificial network of these activations."""
        return sum(self.counter.artificial.values()) / self.counter.samples

    @cached_property
    def _feeding(self) -> frozenset[str]:
        return feeding_neurons(self.network)

    @property
    def _extra(self) -> int:
        """Steps of pre-simulation."""
        return 0 if self.calibration is None else self.calibration.presimulated_steps

    def _steps_of(self, name: str, step: int) -> int:
        """The steps of a node's run that the readout at `step` has waited for."""
        return self.steps if self.network.schedule == "layerwise" and name in self._feeding else step

    def _of_run(self, name: str, step: int) -> float:
        """The operations of a node in the run, for one image."""
        counts = self.counter.operations[name]
        return (
            float(counts[: 1 if self.counter.once(name) else self._steps_of(name, step)].sum()) / self.counter.samples
        )

    def _of_presimulation(self, name: str) -> float:
        """Likewise before the run. No readout is pre-simulated."""
        if self.calibration is None or name not in self._feeding or self.counter.once(name):
            return 0.0
        if self.before is not None:
            return float(self.before.operations[name].sum()) / self.before.samples
        passes = self.calibration.presimulated_steps // self.calibration.rho
        return passes * float(self.counter.operations[name][: self.calibration.rho].sum()) / self.counter.samples

    def _spikes_beside(self, step: int) -> float:
        """The spikes of a pre-simulation of all layers; or those after `step` that a layer above is calibrated on."""
        if self.before is not None:
            return float(sum(counts.sum() for counts in self.before.spikes.values()))
        if self.calibration is None:
            return 0.0
        feeding = [counts for name, counts in self.counter.spikes.items() if name in self._feeding]
        return float(sum(counts[step : self.calibration.rho].sum() for counts in feeding))

    def _bias_additions(self, step: int) -> Iterator[int]:
        """Of each node, one for each place of its output that has a bias, or a constant current, and each step."""
        feeds, counter = successors(self.network.graph), self.counter
        for name in counter.operations:
            steps = self._steps_of(name, step) + (self._extra if name in self._feeding else 0)
            if not counter.once(name):
                yield steps * _biased_places(self.network, name, bias_of(self.network.graph.nodes[name]))
            elif not all(target in counter.operations and counter.once(target) for target in feeds[name]):
                # Where the input is held for some steps alone, a bias is what is left after them.
                shown = min(steps, self.network.input_steps or steps)
                biased = _biased_places(self.network, name, bias_of(self.network.graph.nodes[name]))
                yield shown * int(np.prod(self.network.shapes[name])) + (steps - shown) * biased
        for name, spec in self.network.neurons.items():
            table = spec.bias_per_step(self._steps_of(name, step))
            if table is not None:
                yield int(np.count_nonzero(table)) * int(np.prod(spec.shape[1:]))


def _products(network: SpikingNetwork, name: str) -> int:
    """Products of one step, those with 0 among them."""
    return facts(network.graph.nodes[name]).terms * int(np.prod(network.shapes[name]))


def _biased_places(network: SpikingNetwork, name: str, bias: NDArray[Any] | None) -> int:
    if bias is None:
        return 0
    channels, *places = network.shapes[name]
    return int(np.count_nonzero(np.broadcast_to(bias, (channels,)))) * int(np.prod(places, dtype=np.int64))
