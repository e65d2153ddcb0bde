"""The schedule of a layer that one sample after the other runs through, and what is written of it."""

from __future__ import annotations

import numpy as np
from job import PROGRESS_FILE, Job, Node
from neurons import Outputs, Spikes
from window_schedule import ScheduledStep, WindowSchedule

__all__ = ["SampleSchedule"]


class SampleSchedule:
    """A layer of neurons, or the readout, `delay` synapses away from the Input.

    Every synapse sends what it received one step before. So this layer's clock is `delay` steps late.

    Args:
        job: What to run.
        node: The layer, or the Output.
        delay: Steps that the first current takes to come here.
    """

    def __init__(self, job: Job, node: Node, delay: int) -> None:
        self._job, self._turns = job, WindowSchedule(job, node, delay, job.samples)
        self._file: Spikes | Outputs | None = None
        self._counter: np.ndarray | None = None
        if node.kind == "output":
            self._file = Outputs(job, node)
            self._counter = np.load(PROGRESS_FILE, mmap_mode="r+", allow_pickle=False)
        elif job.record_spikes:
            self._file = Spikes(job, node)

    def at(self, time_step: int) -> ScheduledStep | None:
        """What the layer does at one of Lava's steps, or None if no sample is there."""
        return self._turns.at(time_step)

    def write(self, sample: int, t: int, leaving: np.ndarray) -> None:
        """Keeps what left the layer, of its node's shape: spikes, or what reaches the Output."""
        if self._file is not None:
            self._file.write(t, sample, 1, leaving[None])
        if self._counter is not None:
            self._counter[0] = sample + (t == self._job.steps - 1)
