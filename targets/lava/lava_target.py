"""The target `lava`: the Lava simulator in a process and an environment of its own."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import get_args

import numpy as np

from cos_export.bounds import MOST_BATCH, MOST_THREADS
from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.datasets import Images, in_memory
from cos_export.errors import InputError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork, check_inputs, check_steps
from cos_export.network.windows import windows
from cos_export.network.workload import multiply_accumulates
from cos_export.progress import Progress, silent
from cos_export.simulation.trace import Trace
from cos_export.whole_number import whole_number
from targets.deadline import check_deadline
from targets.lava.environment import LAVA, LAVA_NC, find
from targets.lava.job import NETX_FILE, Backend, write_job
from targets.lava.lowering import lower
from targets.lava.netx import write_netx
from targets.workers.environment import availability
from targets.workers.job import job_folder
from targets.workers.results import read_trace
from targets.workers.supervisor import supervise

__all__ = ["LavaTarget", "run_network"]

_STARTING_SECONDS = 120.0
_WORK_PER_SECOND: dict[Backend, float] = {"batched": 1e8, "faithful": 2e6, "netx": 2e6}
"""Multiplications, at about a twentieth of what was measured on two busy cores."""

_STEP_SECONDS = 0.02
"""For each process and each of Lava's steps, likewise."""

_SMALLEST_BATCH, _LARGEST_BATCH, _BATCH_VALUES = 16, 256, 2**20


@dataclass(frozen=True)
class LavaTarget:
    """Runs networks in Lava.

    Attributes:
        backend: "batched", one Lava process for each layer, for any number of samples; "faithful", Lava's
            own synapse processes and one sample at a time, as neuromorphic hardware would have it, for a few; or
            "netx", what lava-dl's netx loads of a chain of layers in integers, likewise.
        deadline: Seconds that a run may take; by default plenty for what there is to compute.
        batch_size: Samples that the batched back end computes at once; by default as memory allows.
        cores: Processor cores that the batched back end keeps busy; by default all that this process may use.
    """

    backend: Backend = "batched"
    deadline: float | None = None
    batch_size: int | None = None
    cores: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise InputError(f"backend must be one of {', '.join(get_args(Backend))}, and is {self.backend!r}.")
        check_deadline(self.deadline)
        for name, number, most in (("batch_size", self.batch_size, MOST_BATCH), ("cores", self.cores, MOST_THREADS)):
            if number is not None:
                whole_number(name, number, 1, most)

    @property
    def name(self) -> str:
        """What the command line calls it: "lava", or "lava:faithful" and "lava:netx" for the other back ends."""
        return "lava" if self.backend == "batched" else f"lava:{self.backend}"

    def available(self) -> Availability:
        """Whether Lava is installed; nothing is run to find out."""
        return availability(lambda: find(netx=self.backend == "netx"), LAVA_NC.name)

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """Runs a batch: see `cos_export.bundle.target.Target.run`."""
        return run_network(
            bundle.network,
            images,
            steps,
            states=states,
            record_spikes=record_spikes,
            progress=progress,
            options=self,
        )


def run_network(
    network: SpikingNetwork,
    images: Images,
    steps: int | None = None,
    *,
    states: SampleStates | None = None,
    record_spikes: bool = True,
    progress: Progress = silent,
    options: LavaTarget | None = None,
) -> Trace:
    """Runs a network in Lava.

    Args:
        network: What to run.
        images: (samples, ...) analog inputs, each held for all steps; as for `cos_export.simulate`.
        steps: T; by default what the network was calibrated for.
        states: What a per-sample method has set for these samples.
        record_spikes: Whether to return every spike.
        progress: Told of the samples done.
        options: Back end, deadline, batch size and cores.

    Returns:
        The trace, with spikes of shape (steps, samples, ...) by layer.

    Raises:
        UnavailableError: Lava is not installed, or its Python does not start.
        InputError: The images, steps or states do not fit the network.
        NetworkError: A node of the network cannot be run in Lava, or not by this back end.
        TargetError: Lava failed, died, or was not done by the deadline.
    """
    chosen = options or LavaTarget()
    steps = check_steps(steps, network)
    array = in_memory(check_inputs(network, images, steps))
    if chosen.backend == "netx" and states is not None:
        raise InputError(
            'The netx back end starts every sample from the same potentials. Use "batched" for this method.'
        )
    environment = find(netx=chosen.backend == "netx")
    nodes = lower(network, array, steps, states)
    with job_folder(LAVA) as folder:
        if chosen.backend == "netx":
            write_netx(network, folder / NETX_FILE)
        job = write_job(
            folder,
            network,
            nodes,
            backend=chosen.backend,
            steps=steps,
            samples=len(array),
            batch=chosen.batch_size or _batch_size(network, len(array)),
            cores=chosen.cores or _available_cores(),
            record_spikes=record_spikes,
            deadline=chosen.deadline or _deadline(network, len(array), steps, chosen.backend),
        )
        supervise(environment, job, progress)
        return read_trace(job, network, steps, record_spikes=record_spikes, states=states)


def _batch_size(network: SpikingNetwork, samples: int) -> int:
    """As many samples as keep the largest layer near a million values, in groups of nearly equal size."""
    largest = max(int(np.prod(shape)) for shape in network.shapes.values())
    most = min(max(_BATCH_VALUES // largest, _SMALLEST_BATCH), _LARGEST_BATCH)
    groups = math.ceil(samples / most)
    return math.ceil(samples / groups)


def _available_cores() -> int:
    """The processor's cores that this process, and so the worker, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _clock_steps(network: SpikingNetwork, samples: int, steps: int) -> int:
    """Lava's steps for so many samples, one after the other."""
    if network.schedule == "synchronous":
        return steps * samples
    known = windows(network, steps)
    return known.interval * (samples - 1) + known.last_step


def _deadline(network: SpikingNetwork, samples: int, steps: int, backend: Backend) -> float:
    """Seconds within which even a busy machine should be done."""
    work = multiply_accumulates(network) * samples * steps / _WORK_PER_SECOND[backend]
    stepping = _STEP_SECONDS * len(network.order) * _clock_steps(network, samples, steps)
    return _STARTING_SECONDS + work + stepping
