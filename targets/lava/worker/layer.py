"""The work of one process of the batched back end, free of Lava."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from currents import Currents, current_type
from job import PROGRESS_FILE, Job
from neurons import Neurons, Outputs, Spikes
from stages import Stage

__all__ = ["Layer"]


class Layer:
    """A stage over groups of samples, streamed one after the other through one run.

    Lava's step k = 1, 2, ... is step (k - 1 - late) mod T of group (k - 1 - late) div T. At each group's first
    step the potentials start anew, and before the first group and after the last the stage rests.

    Args:
        job: What to run.
        stage: This process's part.
        late: Steps that this stage is behind the first one.
    """

    def __init__(self, job: Job, stage: Stage, late: int) -> None:
        self._job, self._late = job, late
        node = stage.node
        self._currents = Currents(stage, current_type(stage, job))
        entry = next(n for n in job.nodes if n.name == stage.input_name)
        self._images = entry.array("images") if stage.hears_input else None
        potential = np.int32 if job.integers else np.float32
        self._neurons = Neurons(node, job.batch, potential) if node.kind == "neuron" else None
        self._file: Spikes | Outputs | None = None
        self._counter: np.ndarray | None = None
        if node.kind == "output":
            self._file = Outputs(job, node)
            self._counter = np.load(PROGRESS_FILE, mmap_mode="r+", allow_pickle=False)
        elif job.record_spikes:
            self._file = Spikes(job, node)
        self._place = (0, 0, 0)
        self._leaving: np.ndarray | None = None

    def advance(self, time_step: int, spikes: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """One step of Lava, counted from 1.

        Args:
            time_step: Which.
            spikes: Of the layers that the stage hears, by name: (batch, ...), as they are wanted at this step.

        Returns:
            What leaves the stage, (batch, ...), or None if it rests.
        """
        group, t = divmod(time_step - 1 - self._late, self._job.steps)
        first = group * self._job.batch
        count = min(self._job.batch, self._job.samples - first)
        if group < 0 or count <= 0:
            self._leaving = None
            return None
        if t == 0:
            self._begin(first, count)
        self._place = (t, first, count)
        current = self._currents.step(spikes)
        self._leaving = current if self._neurons is None else self._neurons.step(t, current)
        return self._leaving

    def record(self) -> None:
        """Writes what `advance` returned. Apart from it, so that the next stage need not wait for the disk."""
        if self._leaving is None:
            return
        if self._file is not None:
            self._file.write(*self._place, self._leaving)
        if self._counter is not None:
            t, first, count = self._place
            self._counter[0] = first + count if t == self._job.steps - 1 else first

    def _begin(self, first: int, count: int) -> None:
        images = None
        if self._images is not None:
            images = np.zeros((self._job.batch, *self._images.shape[1:]), np.float32)
            images[:count] = self._images[first : first + count]
        self._currents.begin(images)
        if self._neurons is not None:
            self._neurons.begin(first, count)
