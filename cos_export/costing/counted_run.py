"""Runs that are counted, and runs of which the spikes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.costing.operation_counter import OperationCounter
from cos_export.costing.operations import CountedRun
from cos_export.datasets import Images
from cos_export.network import FloatArray, SpikingNetwork, check_inputs
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Trace

__all__ = ["counted_run", "counted_spikes", "counted_trace"]

PART = 64
"""Samples of a trace that are counted at once: it bounds the memory."""


def counted_run(
    network: SpikingNetwork,
    images: Images,
    steps: int,
    *,
    calibration: PerSampleCalibration | None = None,
    device: str = "auto",
    batch_size: int = 64,
    activity: bool = False,
    progress: Progress = silent,
) -> tuple[Trace, CountedRun]:
    """Runs a network and counts what it computes; arguments and errors as for `simulate`.

    A method that pre-simulates all layers together is run for its pre-simulation once more, to count it.

    Args:
        network: What to run.
        images: (samples, ...).
        steps: T.
        calibration: A per-sample method to run with.
        device: Where.
        batch_size: Samples computed at once.
        activity: Whether to count as well what an artificial network with these activations computes.
        progress: Told of each batch.

    Returns:
        The trace without spikes, of at least `steps` steps, and the counts.
    """
    array = check_inputs(network, images, steps)

    def count(counter: OperationCounter, method: PerSampleCalibration | None) -> Trace:
        return simulate(
            counter.network,
            array,
            counter.steps,
            calibration=method,
            device=device,
            batch_size=batch_size,
            record_spikes=False,
            record_states=False,
            observe=counter.observe,
            progress=progress,
        )

    other = None if calibration is None else calibration.presimulated(network)
    # Layer by layer each fires for as many steps as the one above is calibrated on.
    fired = steps if calibration is None or other is not None else max(steps, calibration.rho)
    counter = OperationCounter(network, array, fired, activity=steps if activity else 0)
    trace = count(counter, calibration)
    before = None
    if other is not None and calibration is not None:
        before = OperationCounter(other, array, calibration.presimulated_steps)
        count(before, None)
    return trace, CountedRun(network, steps, counter, calibration, before)


def counted_trace(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    calibration: PerSampleCalibration | None = None,
    *,
    device: str = "auto",
    activity: bool = False,
) -> CountedRun:
    """The operations of a run whose spikes were kept; one of a per-sample method is run again, for its pre-simulation.

    Args:
        network: What ran.
        images: (samples, ...), as `check_inputs` returns them.
        trace: The run.
        calibration: The per-sample method that it ran with.
        device: Where.
        activity: As for `counted_run`.
    """
    if calibration is None:
        return counted_spikes(network, images, trace.spikes, activity=activity)
    return counted_run(network, images, trace.steps, calibration=calibration, device=device, activity=activity)[1]


def counted_spikes(
    network: SpikingNetwork, images: FloatArray, spikes: Mapping[str, NDArray[Any]], *, activity: bool = False
) -> CountedRun:
    """Counts what a static network has computed in a run whose spikes were kept.

    Args:
        network: What ran.
        images: (samples, ...), as `check_inputs` returns them.
        spikes: By layer, (steps, samples, ...).
        activity: As for `counted_run`.
    """
    steps = len(next(iter(spikes.values())))
    counter = OperationCounter(network, images, steps, activity=steps if activity else 0)
    for start in range(0, len(images), PART):
        for name in network.layers:
            part = np.ascontiguousarray(spikes[name][:, start : start + PART])
            counter.add(name, torch.from_numpy(part))
    return CountedRun(network, steps, counter)
