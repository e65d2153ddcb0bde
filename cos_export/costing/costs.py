"""`costs`: what one image costs in a network, counted while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cos_export.costing.counted_run import counted_run
from cos_export.costing.energy import ENERGY_MODEL, ArtificialCosts, Energy, artificial_costs, energy
from cos_export.costing.footprint import Footprint, footprint
from cos_export.costing.operations import CountedRun, Operations
from cos_export.costing.timing import Timing, timing
from cos_export.datasets import Images
from cos_export.network import SpikingNetwork, check_network, check_steps
from cos_export.network.schedule import Schedule
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, check_per_sample

__all__ = ["Costs", "costs", "costs_of"]


@dataclass(frozen=True)
class Costs:
    """What one image costs: `docs/costs.md` has the rules.

    Attributes:
        schedule: "synchronous" or "layerwise".
        num_timesteps: T.
        method: The calibration method.
        rho: The extra steps per sample that it says, 0 if static.
        numerics: "float32" or "int8".
        samples: The images that were counted on.
        timing: Steps.
        operations: The mean over the images.
        footprint: Bytes.
        energy: Analytical, with the memory traffic beside it.
        artificial: The artificial network at equal bits.
    """

    schedule: Schedule
    num_timesteps: int
    method: str
    rho: int
    numerics: str
    samples: int
    timing: Timing
    operations: Operations
    footprint: Footprint
    energy: Energy
    artificial: ArtificialCosts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["operations"]["synaptic_operations"] = self.operations.synaptic_operations
        values["footprint"]["state"] = self.footprint.state
        values["footprint"]["parameters"] = self.footprint.parameters(self.numerics)
        values["energy_model"] = ENERGY_MODEL
        return values


def costs(
    network: SpikingNetwork,
    images: Images,
    steps: int | None = None,
    calibration: PerSampleCalibration | None = None,
    *,
    device: str = "auto",
    batch_size: int = 64,
    progress: Progress = silent,
) -> Costs:
    """What one image costs: time-steps, spikes, synaptic operations, bytes and, by the usual figures, energy.

    The network runs on the images, and each spike is counted with the weights that it meets; the memory is that of a
    batch.

    Args:
        network: What to run.
        images: (samples, ...), as for `cos_export.simulate`.
        steps: T; by default what the network was calibrated for.
        calibration: A per-sample method, which pays for its pre-simulation.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once, as for `simulate`.
        progress: Told of each batch.

    Raises:
        InputError: The images or steps do not fit the network, or it is one of a per-sample method that is not given.
        UnavailableError: The device is not there.
    """
    check_network(network)
    check_per_sample(network, calibration)
    steps = check_steps(steps, network)
    _, counted = counted_run(
        network,
        images,
        steps,
        calibration=calibration,
        device=device,
        batch_size=batch_size,
        activity=True,
        progress=progress,
    )
    return costs_of(counted)


def costs_of(counted: CountedRun) -> Costs:
    """What one image costs by a run that was counted with its activity."""
    network, steps, calibration = counted.network, counted.steps, counted.calibration
    operations = counted.at(steps)
    return Costs(
        schedule=network.schedule,
        num_timesteps=steps,
        method=network.method if calibration is None else calibration.name,
        rho=0 if calibration is None else calibration.rho,
        numerics=network.numerics,
        samples=counted.counter.samples,
        timing=timing(network, steps, calibration),
        operations=operations,
        footprint=footprint(network, steps, calibration),
        energy=energy(network, operations),
        artificial=artificial_costs(counted, operations),
    )
