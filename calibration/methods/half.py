"""The initial potential of half the threshold.

Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calibration.methods.method import CalibrationRun, StaticMethod
from cos_export.network import SpikingNetwork, half_potentials

__all__ = ["Half"]


@dataclass(frozen=True)
class Half(StaticMethod):
    """v_init = theta / 2: the expected error of the spike count is zero for evenly spread currents. No data needed."""

    name: ClassVar[str] = "half"

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets v_init; see `StaticMethod.calibrate`."""
        return network.with_neurons({name: half_potentials(spec) for name, spec in network.neurons.items()})
