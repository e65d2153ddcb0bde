"""Mean matching: a static initial potential that makes each neuron's mean rate that of the activation it stands for.

Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021:
its calibration of the initial potential, repeated until the layers agree with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from calibration.checkpoint import potentials, with_potentials
from calibration.layer_by_layer import CalibratedLayer, Currents, layer_by_layer
from calibration.methods.method import CalibrationRun, StaticMethod, option
from calibration.statistics import fired, mean_outputs, mean_rates, mean_spikes
from cos_export.bounds import MOST_ROUNDS
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule, summed_steps
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import NeuronTensors
from cos_export.simulation.program import Program

__all__ = ["MeanMatching"]

STAGE = "mean matching"
LAYER_STAGE = "mean matching, layer by layer"

_START_ERROR = "error of the start"
"""What a checkpoint calls it, beside the potentials of each layer."""


@dataclass(frozen=True)
class MeanMatching(StaticMethod):
    """Static calibration by the mean over the calibration data.

    Every round runs the spiking network once over the data and shifts all layers at once:

        v_init += T (E[a_ann] - E[a_snn])      a_ann: the layer's activation, a_snn = theta * spikes / T

    A layer's error is in part that of the layers before it, which are shifted in the same round: what both correct is
    corrected twice. So in a deep network the error grows from layer to layer before it falls, and where currents are
    not spread evenly between the levels, as in many ReLU networks, it does not fall. If after the last round

        error = mean over layers of mean over neurons of (E[a_ann] - E[a_snn])^2 / theta^2

    exceeds that of the network as it was given, all rounds are discarded and each layer is calibrated before the next
    one is looked at, on the spikes of the calibrated layers before it, from the potential that was given. There a
    neuron keeps a shift only if it brings it closer; otherwise its next shift is half as large. If that ends with a
    larger error as well, the network is returned as it was given.

    v_init is one value per neuron, in the unit of theta, for the T that was calibrated for. Labels are not needed.
    """

    rounds: int = option(10, "How often all layers are shifted.", minimum=1, maximum=MOST_ROUNDS)
    name: ClassVar[str] = "mean-matching"
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets v_init; see `StaticMethod.calibrate`."""
        rates = mean_outputs(Program(network, run.device), run.data, clipped_activation)
        expected = {name: mean[0] for name, mean in rates.items()}
        _, kept = run.checkpoint.load(LAYER_STAGE) or (0, {})
        if kept:
            before = float(kept[_START_ERROR])
        else:
            matched, before, after = self._all_at_once(network, expected, run)
            if after <= before:
                return matched
        matched = self._layer_by_layer(network, expected, run, before)
        after = _mean_square(_errors(matched, expected, run))
        return matched if after <= before else network

    def _all_at_once(
        self, network: SpikingNetwork, expected: Mapping[str, Tensor], run: CalibrationRun
    ) -> tuple[SpikingNetwork, float, float]:
        """The network after all rounds, and the error before and after them."""
        first, kept = run.checkpoint.load(STAGE) or (0, {})
        network = with_potentials(network, {name: v for name, v in kept.items() if name != _START_ERROR})
        before = float(kept[_START_ERROR]) if kept else np.inf
        for done in range(first, self.rounds):
            run.progress(STAGE, done, self.rounds)
            run.checkpoint.save(STAGE, done, _state(potentials(network), before))
            errors = _errors(network, expected, run)
            before = _mean_square(errors) if done == 0 else before
            shifted = {}
            for name, spec in network.neurons.items():
                change = run.steps * spec.threshold * errors[name].cpu().numpy()
                shifted[name] = replace(spec, v_init=(spec.v_init + change).astype(np.float32))
            network = network.with_neurons(shifted)
        run.progress(STAGE, self.rounds, self.rounds)
        return network, before, _mean_square(_errors(network, expected, run))

    def _layer_by_layer(
        self, network: SpikingNetwork, expected: Mapping[str, Tensor], run: CalibrationRun, before: float
    ) -> SpikingNetwork:
        steps = run.steps
        program = Program(network, run.device, window=summed_steps(network.schedule, steps))
        _, kept = run.checkpoint.load(LAYER_STAGE) or (0, {})
        starts = {name: value.to(program.device) for name, value in kept.items() if name != _START_ERROR}

        def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
            run.progress(LAYER_STAGE, network.layers.index(name), len(network.layers))
            if name not in starts:
                run.checkpoint.save(LAYER_STAGE, len(starts), _state(starts, before))
                starts[name] = self._matched(neuron, expected[name], currents, run, network.schedule)
            moved = replace(neuron, v_init=starts[name])
            return CalibratedLayer(lambda batch: fired(batch.clone(), moved, steps, network.schedule))

        layer_by_layer(program, run.data, calibrate_layer)
        run.progress(LAYER_STAGE, len(network.layers), len(network.layers))
        return with_potentials(network, {name: value.cpu() for name, value in starts.items()})

    def _matched(
        self, neuron: NeuronTensors, expected: Tensor, currents: Currents, run: CalibrationRun, schedule: Schedule
    ) -> Tensor:
        """The potentials of one layer: the closest of those that the rounds come to, for each neuron."""
        steps, samples, best = run.steps, len(run.data), neuron.v_init
        error = expected - mean_spikes(currents(), neuron, steps, samples, schedule)
        share = torch.ones_like(error)
        for _ in range(self.rounds):
            tried = (best + share * steps * neuron.threshold * error).to(best.dtype)
            remaining = expected - mean_spikes(currents(), replace(neuron, v_init=tried), steps, samples, schedule)
            closer = remaining.abs() < error.abs()
            best, error = torch.where(closer, tried, best), torch.where(closer, remaining, error)
            share = torch.where(closer, share, share / 2)
        return best.contiguous()


def _errors(network: SpikingNetwork, expected: Mapping[str, Tensor], run: CalibrationRun) -> dict[str, Tensor]:
    """(E[a_ann] - E[a_snn]) / theta of each neuron, (...) in float64, by layer."""
    actual = mean_rates(network, run.data, run.steps, run.device)
    return {name: (expected[name] - rate).mean(0) for name, rate in actual.items()}


def _mean_square(errors: Mapping[str, Tensor]) -> float:
    return float(np.mean([float(error.square().mean()) for error in errors.values()]))


def _state(starts: Mapping[str, Tensor], before: float) -> dict[str, Tensor]:
    return {**starts, _START_ERROR: torch.tensor(before, dtype=torch.float64)}
