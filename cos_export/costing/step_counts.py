"""For how many steps each node computes: in the run, and beside it for the sake of a per-sample calibration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cos_export.costing.operation_counter import feeding_neurons
from cos_export.network import SpikingNetwork
from cos_export.network.order import successors
from cos_export.simulation import PerSampleCalibration

__all__ = ["StepCounts"]


@dataclass(frozen=True)
class StepCounts:
    """The steps of every node of a network.

    A method that pre-simulates layer by layer sends each layer the first rho steps of its input, once for each
    iteration, before it runs on all; and a layer that others are calibrated on fires for rho steps at least. One that
    pre-simulates all layers together runs the network for rho steps. Only the readout takes no part.

    Attributes:
        network: What runs.
        steps: T.
        calibration: The per-sample method, or None.
    """

    network: SpikingNetwork
    steps: int
    calibration: PerSampleCalibration | None = None

    @cached_property
    def feeding(self) -> frozenset[str]:
        """The nodes that feed a layer; what feeds none makes the readout."""
        return feeding_neurons(self.network)

    @cached_property
    def whole(self) -> bool:
        """Whether the method pre-simulates all layers together."""
        return self.calibration is not None and self.calibration.presimulated(self.network) is not None

    @property
    def passes(self) -> int:
        """How often a layer is pre-simulated, for rho steps each time."""
        return 0 if self.calibration is None else self.calibration.presimulated_steps // self.calibration.rho

    @cached_property
    def _calibrated_on(self) -> frozenset[str]:
        """The layers whose spikes others are calibrated on, and what feeds these layers with no other between."""
        network, feeds = self.network, successors(self.network.graph)
        found: set[str] = set()
        for name in reversed(network.order):
            layer, taking = name in network.neurons, any(target in found for target in feeds[name])
            if name in self.feeding if layer else taking:
                found.add(name)
        return frozenset(found)

    def run(self, name: str, step: int) -> int:
        """The steps of a node's run that the readout at `step` has waited for.

        Under the layer-wise schedule all layers have fired for T steps before.
        """
        return self.steps if self.network.schedule == "layerwise" and name in self.feeding else step

    def later(self, name: str, step: int) -> int:
        """The steps after `step` for which a node goes on because layers above are calibrated on rho steps."""
        if self.calibration is None or self.whole or name not in self._calibrated_on:
            return 0
        return max(0, self.calibration.rho - step)

    def beside(self, name: str, step: int) -> int:
        """All steps that a node computes for the sake of the calibration."""
        if self.calibration is None or not (name in self.feeding or name in self.network.neurons):
            return 0
        return self.calibration.presimulated_steps + self.later(name, step)
