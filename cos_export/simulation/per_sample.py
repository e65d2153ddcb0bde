"""What a per-sample method is to a run: it spends extra steps on each sample to set that sample's own states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from cos_export.errors import InputError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.simulation.layerwise import WindowRun
from cos_export.simulation.neuron import Run
from cos_export.simulation.presimulation import PreSimulationRule
from cos_export.simulation.program import Program

__all__ = ["Observer", "PerSampleCalibration", "check_per_sample"]

Observer = Callable[[str, Run | WindowRun], None]
"""Told what each layer fired: (layer, its run). A batch may come in parts, of which each layer tells in order.

Both kinds of run have `spikes`, `fired`, `residual` and `potentials`.
"""


class PerSampleCalibration(Protocol):
    """A method that spends `rho` extra steps on each sample to set that sample's own states."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    @property
    def rho(self) -> int:
        """Extra steps per sample."""

    @property
    def presimulation(self) -> PreSimulationRule:
        """What it makes of the extra steps, for executors that carry it out by themselves."""

    def record(self) -> Mapping[str, Any]:
        """Its name and every option as plain JSON: what a bundle keeps, for it to be rebuilt from."""

    @property
    def presimulated_steps(self) -> int:
        """Steps that each layer takes of its input before its own run: rho, for each pass over them."""

    def presimulated(self, network: SpikingNetwork) -> SpikingNetwork | None:
        """What runs these steps, all layers together; None if each layer waits for the calibrated one below."""

    def run(self, program: Program, images: Tensor, steps: int, observe: Observer) -> tuple[Tensor, SampleStates]:
        """Calibrates on `images` and runs them.

        In a network of integers the run starts from `cos_export.simulation.fixed_point.start_potentials` of what the
        calibration asks for, and those are the states that are returned.

        Args:
            program: The network on a device.
            images: (batch, ...).
            steps: T.
            observe: To be told of each layer's run.

        Returns:
            What reaches the Output, (steps or 1, batch, classes), and the states that were set.
        """


def check_per_sample(network: SpikingNetwork, calibration: PerSampleCalibration | None) -> None:
    """Refuses to speak of a network by the name of its per-sample method where that is not run.

    Raises:
        InputError: The network says that its method calibrates each sample, and none is given.
    """
    if calibration is None and network.rho:
        raise InputError(
            f"The network is run with {network.method!r}, which calibrates each sample: pass calibration=, as "
            "cos_export.method_of(network).method has it."
        )
