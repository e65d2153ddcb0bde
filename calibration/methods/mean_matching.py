"""Mean matching: a static initial potential that makes each neuron's mean rate that of the activation it stands for.

Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021:
its calibration of the initial potential, layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

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

STAGE = "matching mean rates"

_START, _ERROR, _NETWORK = "v_init/", "error/", "error of the start"
"""What a checkpoint calls the potentials of a layer, the error that they leave, and that of the network before."""


@dataclass(frozen=True)
class MeanMatching(StaticMethod):
    """Static calibration by the mean over the calibration data.

    Each layer is calibrated before the next one is looked at, on the spikes of the calibrated layers before it, from
    the potential that was given. Every round shifts its neurons by what their mean rate lacks,

        v_init += T (E[a_ann] - E[a_snn])      a_ann: the layer's activation, a_snn = theta * spikes / T

    A neuron keeps a shift only if it brings it closer; otherwise its next shift is half as large. If all layers were
    shifted at once, what is the error of the layers before would be corrected twice, by them and by the layer, and in
    deep networks the error would grow from round to round.

    If in the end the error of the whole network,

        mean over layers of mean over neurons of (E[a_ann] - E[a_snn])^2 / theta^2

    exceeds that of the network as it was given, that one is returned.

    v_init is one value per neuron, in the unit of theta, for the T that was calibrated for. Labels are not needed.
    """

    rounds: int = option(10, "How often each layer is shifted.", minimum=1, maximum=MOST_ROUNDS)
    name: ClassVar[str] = "mean-matching"
    needs_data: ClassVar[bool] = True
    depends_on_steps: ClassVar[bool] = True

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets v_init; see `StaticMethod.calibrate`."""
        rates = mean_outputs(Program(network, run.device), run.data, clipped_activation)
        expected = {name: mean[0] for name, mean in rates.items()}
        done, kept = run.checkpoint.load(STAGE) or (0, {})
        state = dict(kept) if kept else {_NETWORK: _error_of(network, expected, run)}

        def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
            number = network.layers.index(name)
            run.progress(STAGE, max(number, done), len(network.layers))
            if number >= done:
                run.checkpoint.save(STAGE, number, state)
                state[_START + name], state[_ERROR + name] = self._matched(
                    neuron, expected[name], currents, run, network.schedule
                )
            moved = replace(neuron, v_init=state[_START + name].to(run.device))
            return CalibratedLayer(lambda batch: fired(batch.clone(), moved, run.steps, network.schedule))

        program = Program(network, run.device, window=summed_steps(network.schedule, run.steps))
        layer_by_layer(program, run.data, calibrate_layer)
        run.progress(STAGE, len(network.layers), len(network.layers))
        after = np.mean([float(state[_ERROR + name]) for name in network.layers])
        if after > float(state[_NETWORK]):
            return network
        starts = {name: np.ascontiguousarray(state[_START + name].cpu().numpy()) for name in network.layers}
        return network.with_neurons(
            {name: replace(spec, v_init=starts[name]) for name, spec in network.neurons.items()}
        )

    def _matched(
        self, neuron: NeuronTensors, expected: Tensor, currents: Currents, run: CalibrationRun, schedule: Schedule
    ) -> tuple[Tensor, Tensor]:
        """The potentials of one layer, the closest of those that the rounds come to for each neuron; and their error.

        The error is the mean over the neurons of (E[a_ann] - E[a_snn])^2 / theta^2, () in float64.
        """
        steps, samples, best = run.steps, len(run.data), neuron.v_init
        error = expected - mean_spikes(currents(), neuron, steps, samples, schedule)
        share = torch.ones_like(error)
        for _ in range(self.rounds):
            tried = (best + share * steps * neuron.threshold * error).to(best.dtype)
            remaining = expected - mean_spikes(currents(), replace(neuron, v_init=tried), steps, samples, schedule)
            closer = remaining.abs() < error.abs()
            best, error = torch.where(closer, tried, best), torch.where(closer, remaining, error)
            share = torch.where(closer, share, share / 2)
        return best.contiguous(), error.square().mean()


def _error_of(network: SpikingNetwork, expected: Mapping[str, Tensor], run: CalibrationRun) -> Tensor:
    """The error of the whole network, () in float64."""
    rates = mean_rates(network, run.data, run.steps, run.device)
    return torch.stack([(expected[name] - rate).mean(0).square().mean() for name, rate in rates.items()]).mean()
