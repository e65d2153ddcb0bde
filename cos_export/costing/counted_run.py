"""Runs that are counted, and runs of which the spikes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.costing.fan_out import FanOuts
from cos_export.costing.operation_counter import OperationCounter
from cos_export.costing.operations import CountedRun
from cos_export.datasets import Dataset, ImageArray, Images, some_of
from cos_export.errors import NetworkError
from cos_export.network import FloatArray, SpikingNetwork, check_inputs
from cos_export.network.workload import samples_at_once
from cos_export.processes import first_failure, gathered, share
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Trace

__all__ = ["counted_run", "counted_spikes", "counted_trace", "shared_run"]

PART = 64
"""Samples of a trace that are counted at once, at most: it bounds the memory."""


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
        batch_size: Samples computed at once, as for `simulate`.
        activity: Whether to count as well what an artificial network with these activations computes.
        progress: Told of each batch.

    Returns:
        The trace without spikes, of at least `steps` steps, and the counts.
    """
    array = check_inputs(network, images, steps)
    counters = _Counters(network, array, steps, calibration, activity=activity)
    trace = counters.run(array, device=device, batch_size=batch_size, progress=progress)
    return trace, counters.counted


def shared_run(
    network: SpikingNetwork,
    dataset: Dataset,
    steps: int,
    *,
    calibration: PerSampleCalibration | None = None,
    device: str = "auto",
    batch_size: int = 64,
    known: FanOuts | None = None,
    progress: Progress = silent,
) -> tuple[NDArray[np.bool_], CountedRun]:
    """Runs a network over a data set, counts what it computes, and shares the images among the processes there are.

    All of them must call it, in one `process_group`, and all get the same: what one process would have computed, to the
    bit, for batches hold the same images and what is counted are whole numbers.

    Args:
        network: What to run.
        dataset: Images and labels.
        steps: T.
        calibration: A per-sample method to run with.
        device: Where.
        batch_size: Samples computed at once, as for `simulate`.
        known: The network's fan-outs, where they have been found before.
        progress: Told of each batch of this process.

    Raises:
        NetworkError: In every process, if a sum is beyond what float32 holds in one.

    Returns:
        Which images are decided rightly after each step, (steps, samples), and the counts.
    """
    array, truth = check_inputs(network, dataset, steps), dataset.truth
    own = share(len(array), batch_size)
    mine = some_of(array, own)
    counters = _Counters(network, mine, steps, calibration, known=known)
    right, failure = torch.zeros(len(mine), steps, dtype=torch.uint8), None
    if len(right):
        try:
            trace = counters.run(mine, device=device, batch_size=batch_size, progress=progress)
        except NetworkError as error:  # What images do to a network may be found by one process alone.
            failure = str(error)
        else:
            right = torch.from_numpy(trace.right(truth[own])[:steps].T.astype(np.uint8))
    if (failure := first_failure(failure)) is not None:
        raise NetworkError(failure)
    right = gathered(right, own, len(array))
    counters.sum_over_processes()
    return right.numpy().T.astype(np.bool_), counters.counted


class _Counters:
    """What counts a run, and the pre-simulation of all layers together before it if its method has one."""

    def __init__(
        self,
        network: SpikingNetwork,
        images: ImageArray,
        steps: int,
        calibration: PerSampleCalibration | None,
        *,
        activity: bool = False,
        known: FanOuts | None = None,
    ) -> None:
        other = None if calibration is None else calibration.presimulated(network)
        # Layer by layer each fires for as many steps as the one above is calibrated on.
        fired = steps if calibration is None or other is not None else max(steps, calibration.rho)
        counter = OperationCounter(network, images, fired, activity=steps if activity else 0, known=known)
        before = None
        if other is not None and calibration is not None:
            before = OperationCounter(other, images, calibration.presimulated_steps)
        self.counted = CountedRun(network, steps, counter, calibration, before)

    def run(self, images: ImageArray, *, device: str, batch_size: int, progress: Progress) -> Trace:
        """Runs the images that the counters were made for."""

        def count(counter: OperationCounter, method: PerSampleCalibration | None) -> Trace:
            return simulate(
                counter.network,
                images,
                counter.steps,
                calibration=method,
                device=device,
                batch_size=batch_size,
                record_spikes=False,
                record_states=False,
                observe=counter.observe,
                progress=progress,
            )

        trace = count(self.counted.counter, self.counted.calibration)
        if self.counted.before is not None:
            count(self.counted.before, None)
        return trace

    def sum_over_processes(self) -> None:
        """Adds what the other processes have counted."""
        for counter in (self.counted.counter, self.counted.before):
            if counter is not None:
                counter.sum_over_processes()


def counted_trace(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    calibration: PerSampleCalibration | None = None,
    *,
    device: str = "auto",
    activity: bool = False,
    progress: Progress = silent,
) -> CountedRun:
    """The operations of a run whose spikes were kept; one of a per-sample method is run again, for its pre-simulation.

    Args:
        network: What ran.
        images: (samples, ...), as `check_inputs` returns them.
        trace: The run.
        calibration: The per-sample method that it ran with.
        device: Where.
        activity: As for `counted_run`.
        progress: Told of each part.
    """
    if calibration is None:
        return counted_spikes(network, images, trace.spikes, activity=activity, progress=progress)
    return counted_run(
        network, images, trace.steps, calibration=calibration, device=device, activity=activity, progress=progress
    )[1]


def counted_spikes(
    network: SpikingNetwork,
    images: FloatArray,
    spikes: Mapping[str, NDArray[Any]],
    *,
    activity: bool = False,
    progress: Progress = silent,
) -> CountedRun:
    """Counts what a static network has computed in a run whose spikes were kept.

    Args:
        network: What ran.
        images: (samples, ...), as `check_inputs` returns them.
        spikes: By layer, (steps, samples, ...).
        activity: As for `counted_run`.
        progress: Told of each part.
    """
    steps = len(next(iter(spikes.values())))
    counter = OperationCounter(network, images, steps, activity=steps if activity else 0)
    size = samples_at_once(network, steps, PART)
    for start in range(0, len(images), size):
        progress("counting operations", start, len(images))
        for name in network.layers:
            part = np.ascontiguousarray(spikes[name][:, start : start + size])
            counter.add(name, torch.from_numpy(part))
    progress("counting operations", len(images), len(images))
    return CountedRun(network, steps, counter)
