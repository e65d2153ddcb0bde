"""The initial potential of half the threshold.

Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from calibration.checkpoint import Checkpoint
from calibration.data import CalibrationData
from cos_export.network import SpikingNetwork, half_potentials
from cos_export.progress import Progress

__all__ = ["Half"]


@dataclass(frozen=True)
class Half:
    """v_init = theta / 2: the expected error of the spike count is zero for evenly spread currents. No data needed."""

    name: str = field(default="half", init=False)
    needs_data: bool = field(default=False, init=False)

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
        return network.with_neurons({name: half_potentials(spec) for name, spec in network.neurons.items()})
