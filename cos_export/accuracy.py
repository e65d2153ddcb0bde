"""Accuracy by the number of steps, with what each input costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cos_export.datasets import Dataset
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Trace

__all__ = ["READOUTS", "AccuracyRow", "measure_accuracy", "readouts", "row_of"]

READOUTS = (1, 2, 4, 8)
"""The steps t at which accuracies are reported."""


@dataclass(frozen=True)
class AccuracyRow:
    """One method's accuracies.

    Attributes:
        method: The calibration method.
        num_timesteps: T that a static method was calibrated for, None if it depends on no T.
        rho: Extra steps per input.
        accuracy: The share of right answers after t steps, by t. One input costs T_total = rho + t.
        schedule: When layers fire.
    """

    method: str
    num_timesteps: int | None
    rho: int
    accuracy: dict[int, float]
    schedule: Schedule = "synchronous"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the steps as strings."""
        return asdict(self) | {"accuracy": {str(t): value for t, value in self.accuracy.items()}}


def readouts(steps: int) -> tuple[int, ...]:
    """Where to read out a run of at least 8 steps that is deployed at `steps`: 1, 2, 4, 8 and `steps` itself."""
    return tuple(sorted({*READOUTS, steps}))


def row_of(network: SpikingNetwork, trace: Trace, dataset: Dataset, at: Sequence[int]) -> AccuracyRow:
    """The accuracies of a run of `dataset`, at the steps `at`."""
    shares = trace.accuracy(dataset.labels)
    return AccuracyRow(
        method=network.method,
        num_timesteps=None if trace.rho else network.calibrated_timesteps,
        rho=trace.rho,
        accuracy={t: float(shares[t - 1]) for t in at},
        schedule=network.schedule,
    )


def measure_accuracy(
    network: SpikingNetwork,
    dataset: Dataset,
    at: Sequence[int],
    *,
    calibration: PerSampleCalibration | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> AccuracyRow:
    """Runs the PyTorch reference over a data set.

    Args:
        network: What to run.
        dataset: Images and labels.
        at: The steps t to read out at; the run is as long as the largest. Under the layer-wise schedule each is a run
            of its own, for when a layer fires depends on T.
        calibration: A per-sample method to run with.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Told of each batch.
    """
    rows = []
    for steps in at if network.schedule == "layerwise" else [max(at)]:
        trace = simulate(
            network,
            dataset.images,
            steps,
            calibration=calibration,
            device=device,
            record_spikes=False,
            record_states=False,
            progress=progress,
        )
        rows.append(row_of(network, trace, dataset, [steps] if network.schedule == "layerwise" else at))
    accuracy = {t: share for row in rows for t, share in row.accuracy.items()}
    return replace(rows[-1], accuracy=accuracy, method=rows[-1].method if calibration is None else calibration.name)
