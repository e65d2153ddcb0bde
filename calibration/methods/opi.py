"""OPI: the initial potential that minimises the expected squared conversion error.

Bu et al., "Optimized Potential Initialization for Low-latency Spiking Neural Networks", AAAI 2022, arXiv 2202.01440.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calibration.methods.half import Half
from calibration.methods.method import CalibrationRun, StaticMethod
from cos_export.network import SpikingNetwork

__all__ = ["OPI"]


@dataclass(frozen=True)
class OPI(StaticMethod):
    """v_init = theta / 2 for every neuron, whatever T: on a given network the same as `half`. No data needed.

    In T steps of a constant current z in [0, theta] a neuron fires floor(x + u) spikes, with x = z T / theta and
    u = v_init / theta. Where z is spread evenly between two levels, the error floor(x + u) - x is spread evenly
    over (u - 1, u], so that

        E[error] = u - 1/2,    E[error^2] = (u^3 + (1 - u)^3) / 3,    and u = 1/2 is the best for both.

    QCFS (`half`) starts at the same potential, for networks trained with quantised activations; what is OPI's own
    is the derivation, for any network of clipped activations. There is one row for it so that it can be asked for by
    its name.
    """

    name: ClassVar[str] = "opi"

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Sets v_init; see `StaticMethod.calibrate`."""
        return Half().calibrate(network, run)
