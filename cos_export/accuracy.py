"""Accuracy by the number of steps, with what each input costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.costing.counted_run import shared_run
from cos_export.costing.fan_out import fan_outs
from cos_export.costing.operations import CountedRun
from cos_export.costing.timing import readout_latency
from cos_export.datasets import Dataset
from cos_export.device import resolve_device
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.processes import local_device, process_group
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration

__all__ = ["READOUTS", "AccuracyRow", "measure_accuracy", "readouts", "row_of"]

READOUTS = (1, 2, 4, 8)
"""The steps t at which accuracies are reported."""


@dataclass(frozen=True)
class AccuracyRow:
    """One method's accuracies, and what each costs.

    Attributes:
        method: The calibration method.
        num_timesteps: T that a static method was calibrated for, None if it depends on no T.
        rho: Extra steps per input.
        accuracy: The share of right answers after t steps, by t. One input costs T_total = rho + t.
        latency: The steps from an image to that readout, by t.
        synaptic_operations: Of one image, in the mean, by t (docs/costs.md).
        schedule: When layers fire.
    """

    method: str
    num_timesteps: int | None
    rho: int
    accuracy: dict[int, float]
    latency: dict[int, int]
    synaptic_operations: dict[int, float]
    schedule: Schedule = "synchronous"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the steps as strings."""
        document = asdict(self)
        for key in ("accuracy", "latency", "synaptic_operations"):
            document[key] = {str(t): value for t, value in document[key].items()}
        return document


def readouts(steps: int) -> tuple[int, ...]:
    """Where to read out a run of at least 8 steps that is deployed at `steps`: 1, 2, 4, 8 and `steps` itself."""
    return tuple(sorted({*READOUTS, steps}))


def row_of(right: NDArray[np.bool_], rho: int, at: Sequence[int], counted: CountedRun) -> AccuracyRow:
    """The accuracies of a run at the steps `at`.

    Args:
        right: Which samples are decided rightly after each step, (steps, samples).
        rho: Steps that were spent on each of them before.
        at: The steps.
        counted: The network and method, with operations that were counted in this run or in one of other images.
    """
    network, calibration = counted.network, counted.calibration
    shares = right.mean(axis=1)
    return AccuracyRow(
        method=network.method if calibration is None else calibration.name,
        num_timesteps=None if rho else network.calibrated_timesteps,
        rho=rho,
        accuracy={t: float(shares[t - 1]) for t in at},
        latency={t: readout_latency(network, counted.steps, t, calibration) for t in at},
        synaptic_operations={t: counted.at(t).synaptic_operations for t in at},
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

    Started by `torchrun` in several processes, each takes its share of the images and all return the same row, which is
    that of one process to the bit.

    Args:
        network: What to run.
        dataset: Images and labels.
        at: The steps t to read out at; the run is as long as the largest. Under the layer-wise schedule each is a run
            of its own, for when a layer fires depends on T.
        calibration: A per-sample method to run with.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Told of each batch.
    """
    rho = 0 if calibration is None else calibration.rho
    rows, where, known = [], local_device(resolve_device(device)), fan_outs(network)
    with process_group(where):
        for steps in at if network.schedule == "layerwise" else [max(at)]:
            right, counted = shared_run(
                network, dataset, steps, calibration=calibration, device=str(where), known=known, progress=progress
            )
            rows.append(row_of(right, rho, [steps] if network.schedule == "layerwise" else at, counted))
    return replace(
        rows[-1],
        accuracy={t: share for row in rows for t, share in row.accuracy.items()},
        latency={t: steps for row in rows for t, steps in row.latency.items()},
        synaptic_operations={t: count for row in rows for t, count in row.synaptic_operations.items()},
    )
