"""Mean matching: a static initial potential that makes each neuron's mean rate that of the activation it stands for.

Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021:
its calibration of the initial potential, repeated until the layers agree with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from calibration.checkpoint import Checkpoint, potentials, with_potentials
from calibration.data import CalibrationData
from calibration.layer_by_layer import Currents, Sending, layer_by_layer
from calibration.statistics import firing, mean_sent, mean_spikes
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.progress import Progress
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import Program, clipped_activation

__all__ = ["MeanMatching"]

STAGE = "mean matching"
LAYER_STAGE = "mean matching, layer by layer"

_START_ERROR = "error of the start"
"""What a checkpoint calls it, beside the potentials of each layer."""


@dataclass(frozen=True)
class MeanMatching:
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

    Attributes:
        rounds: How often.
    """

    rounds: int = 10
    name: str = field(default="mean-matching", init=False)
    needs_data: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"Mean matching needs at least one round, not {self.rounds}.")

    def calibrate(
        self,
        network: SpikingNetwork,
        data: CalibrationData,
        steps: int,
        device: torch.device,
        progress: Progress,
        checkpoint: Checkpoint,
    ) -> SpikingNetwork:
        """Sets v_init; see `calibration.stage.StaticMethod.calibrate`."""
        program = Program(network, device)
        expected = {name: mean[0] for name, mean in mean_sent(program, data, clipped_activation).items()}
        _, kept = checkpoint.load(LAYER_STAGE) or (0, {})
        if kept:
            before = float(kept[_START_ERROR])
        else:
            matched, before, after = self._all_at_once(network, expected, data, steps, device, progress, checkpoint)
            if after <= before:
                return matched
        matched = self._layer_by_layer(program, expected, data, steps, progress, checkpoint, before)
        after = _mean_square(_errors(matched, expected, data, steps, device))
        return matched if after <= before else network

    def _all_at_once(
        self,
        network: SpikingNetwork,
        expected: Mapping[str, Tensor],
        data: CalibrationData,
        steps: int,
        device: torch.device,
        progress: Progress,
        checkpoint: Checkpoint,
    ) -> tuple[SpikingNetwork, float, float]:
        """The network after all rounds, and the error before and after them."""
        first, kept = checkpoint.load(STAGE) or (0, {})
        network = with_potentials(network, {name: v for name, v in kept.items() if name != _START_ERROR})
        before = float(kept[_START_ERROR]) if kept else np.inf
        for done in range(first, self.rounds):
            progress(STAGE, done, self.rounds)
            checkpoint.save(STAGE, done, _state(potentials(network), before))
            errors = _errors(network, expected, data, steps, device)
            before = _mean_square(errors) if done == 0 else before
            shifted = {}
            for name, spec in network.neurons.items():
                change = steps * spec.threshold * errors[name].cpu().numpy()
                shifted[name] = replace(spec, v_init=(spec.v_init + change).astype(np.float32))
            network = network.with_neurons(shifted)
        progress(STAGE, self.rounds, self.rounds)
        return network, before, _mean_square(_errors(network, expected, data, steps, device))

    def _layer_by_layer(
        self,
        program: Program,
        expected: Mapping[str, Tensor],
        data: CalibrationData,
        steps: int,
        progress: Progress,
        checkpoint: Checkpoint,
        before: float,
    ) -> SpikingNetwork:
        network = program.network
        _, kept = checkpoint.load(LAYER_STAGE) or (0, {})
        starts = {name: value.to(program.device) for name, value in kept.items() if name != _START_ERROR}

        def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> Sending:
            progress(LAYER_STAGE, network.layers.index(name), len(network.layers))
            if name not in starts:
                checkpoint.save(LAYER_STAGE, len(starts), _state(starts, before))
                starts[name] = self._matched(neuron, expected[name], currents, steps, len(data))
            moved = replace(neuron, v_init=starts[name])
            return Sending(lambda batch: integrate_and_fire(batch, steps, moved).spikes)

        layer_by_layer(program, data, calibrate_layer)
        progress(LAYER_STAGE, len(network.layers), len(network.layers))
        return with_potentials(network, {name: value.cpu() for name, value in starts.items()})

    def _matched(self, neuron: NeuronTensors, expected: Tensor, currents: Currents, steps: int, samples: int) -> Tensor:
        """The potentials of one layer: the closest of those that the rounds come to, for each neuron."""
        best = neuron.v_init
        error = expected - mean_spikes(currents(), neuron, steps, samples)
        share = torch.ones_like(error)
        for _ in range(self.rounds):
            tried = (best + share * steps * neuron.threshold * error).to(best.dtype)
            found = expected - mean_spikes(currents(), replace(neuron, v_init=tried), steps, samples)
            closer = found.abs() < error.abs()
            best, error = torch.where(closer, tried, best), torch.where(closer, found, error)
            share = torch.where(closer, share, share / 2)
        return best.contiguous()


def _errors(
    network: SpikingNetwork, expected: Mapping[str, Tensor], data: CalibrationData, steps: int, device: torch.device
) -> dict[str, Tensor]:
    """(E[a_ann] - E[a_snn]) / theta of each neuron, (...) in float64, by layer."""
    found = mean_sent(Program(network, device), data, firing(steps))
    return {name: (expected[name] - spikes).mean(0) for name, spikes in found.items()}


def _mean_square(errors: Mapping[str, Tensor]) -> float:
    return float(np.mean([float(error.square().mean()) for error in errors.values()]))


def _state(starts: Mapping[str, Tensor], before: float) -> dict[str, Tensor]:
    return {**starts, _START_ERROR: torch.tensor(before, dtype=torch.float64)}
