"""Mean matching: a static initial potential that makes each neuron's mean rate that of the activation it stands for.

Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021:
its calibration of the initial potential, repeated until the layers agree with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from calibration.checkpoint import Checkpoint, potentials, with_potentials
from calibration.data import CalibrationData
from calibration.statistics import firing, mean_sent
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.progress import Progress
from cos_export.simulation.program import Program, clipped_activation

__all__ = ["MeanMatching"]

STAGE = "mean matching"


@dataclass(frozen=True)
class MeanMatching:
    """Static calibration by the mean over the calibration data.

    Every round runs the spiking network once over the data and shifts all layers at once:

        v_init += T (E[a_ann] - E[a_snn])      a_ann: the layer's activation, a_snn = theta * spikes / T

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
        wanted = mean_sent(Program(network, device), data, clipped_activation)
        first, kept = checkpoint.load(STAGE) or (0, {})
        network = with_potentials(network, kept)
        for done in range(first, self.rounds):
            progress(STAGE, done, self.rounds)
            checkpoint.save(STAGE, done, potentials(network))
            found = mean_sent(Program(network, device), data, firing(steps))
            shifted = {}
            for name, spec in network.neurons.items():
                change = steps * spec.threshold * (wanted[name] - found[name]).mean(0).cpu().numpy()
                shifted[name] = replace(spec, v_init=(spec.v_init + change).astype(np.float32))
            network = network.with_neurons(shifted)
        progress(STAGE, self.rounds, self.rounds)
        return network
