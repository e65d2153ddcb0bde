"""What a per-sample method makes of a pre-simulation, in words that every executor may carry out by itself.

The methods in `calibration` run them in PyTorch; `cos_export.onnx_file` writes them into a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EPSILON", "NEVER_SILENT", "RESIDUAL", "OffsetCorrection", "PreSimulationRule", "ResidualSilencing"]

EPSILON = 1e-3
"""The margin by which a calibrated neuron stays away from its threshold, in units of the threshold."""

NEVER_SILENT = -1000.0
"""The published stand-in, in units of the threshold, for the largest potential of a neuron that fired at every step."""

RESIDUAL = 1e-3
"""A neuron whose potential ends at or below this, in units of the threshold, is silenced."""


@dataclass(frozen=True)
class OffsetCorrection:
    """Each layer runs rho steps on the corrected layer below, and shifts its initial potentials by what was offset.

    With v(rho) and the count of the first pre-simulation, iteration k = 1, 2, ... shifts

        v_init -= max(theta, min{v(t) : s(t) = 1} + eps)             where v(rho) < -(k-1) theta and count > k-1
        v_init += max(theta, theta + eps - max{v(t) : s(t) = 0})     where v(rho) >= k theta

    with the minimum and maximum of its own pre-simulation and eps = theta / 1000 (Hao et al., ICLR 2023).

    Attributes:
        rho: Pre-simulation steps.
        iterations: How many spikes may be corrected.
    """

    rho: int
    iterations: int = 1

    @property
    def steps(self) -> int:
        """Extra steps for each sample."""
        return self.rho


@dataclass(frozen=True)
class ResidualSilencing:
    """All layers run tau steps together from theta / 2, nothing silenced; v(tau) <= theta / 1000 silences a neuron.

    The run starts again from theta / 2 (Hao et al., AAAI 2023).

    Attributes:
        tau: Pre-simulation steps.
    """

    tau: int

    @property
    def steps(self) -> int:
        """Extra steps for each sample."""
        return self.tau


PreSimulationRule = OffsetCorrection | ResidualSilencing
