"""The work of one process of the batched back end, free of Lava."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from currents import Currents, current_type
from job import PROGRESS_FILE, Job
from layout import zeros
from neurons import Neurons, Outputs, Spikes
from stages import Stage
from window_schedule import WindowSchedule

__all__ = ["Layer"]


class Layer:
    """A stage over groups of samples, streamed one after the other through one run.

    Its clock is `late` steps behind Lava's. At each group's first step the potentials start anew, and before the first
    group and after the last the stage rests.

    Under the layer-wise schedule a layer of neurons only counts the spikes that come, and only in the steps in which
    their layers fire. When its own window opens it computes its current from the numbers, in one pass, and what it
    fires in the whole window, which leaves it step by step.

    Args:
        job: What to run.
        stage: This process's part.
        late: Steps that this stage is behind the first one.
    """

    def __init__(self, job: Job, stage: Stage, late: int) -> None:
        self._job = job
        node = stage.node
        groups = -(-job.samples // job.batch)
        self._schedule, self._group = WindowSchedule(job, node, late, groups), -1
        self._window = job.steps if job.layerwise and node.kind == "neuron" else 1
        self._currents = Currents(stage, current_type(stage, job, self._window), self._window)
        self._sources: dict[str, WindowSchedule] = {}
        self._numbers: dict[str, np.ndarray] = {}
        # How often each neuron fires in its window, under the layer-wise schedule.
        self._counts = np.zeros(0)
        if job.layerwise and node.kind == "neuron":
            small = np.uint8 if job.steps < 256 else np.float32
            self._counts = zeros(job.batch, node.shape, small)
            self._sources = {source.name: WindowSchedule(job, source, late, groups) for source in stage.sources}
            self._numbers = {source.name: zeros(job.batch, source.shape, small) for source in stage.sources}
        entry = next(n for n in job.nodes if n.name == stage.input_name)
        self._images = entry.array("images") if stage.reads_input else None
        self._input_shape = entry.shape
        # The step from which on the Input sends zero.
        self._shown: int = entry.settings["shown"]
        # Whether the Input sends another image at each step.
        self._frames: bool = entry.settings["frames"]
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
            spikes: By name of the layer that sends them, (batch, ...): those that the stage needs at this step.

        Returns:
            What leaves the stage, (batch, ...), or None if it rests.
        """
        self._leaving = None
        scheduled = self._schedule.at(time_step)
        if scheduled is None:
            return None
        first = scheduled.number * self._job.batch
        count = min(self._job.batch, self._job.samples - first)
        if scheduled.number != self._group:
            self._group = scheduled.number
            self._begin(first, count)
        for name, source in self._sources.items():
            source_step = source.at(time_step)
            if source_step is not None and source_step.fires is not None:
                self._numbers[name] += spikes[name]
        if scheduled.fires is None:
            return None
        if scheduled.fires == self._shown:
            self._show_nothing()
        elif self._frames and scheduled.fires > 0:
            self._show(first, count, scheduled.fires)
        self._place = (scheduled.fires, first, count)
        if self._neurons is None:
            self._leaving = self._currents.step(spikes)
        elif self._job.layerwise:
            if scheduled.fires == 0:
                self._counts = self._neurons.counts(self._currents.step(self._numbers), self._job.steps)
            self._leaving = self._neurons.audible(self._counts > scheduled.fires)
        else:
            self._leaving = self._neurons.step(scheduled.fires, self._currents.step(spikes))
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
        self._show(first, count, 0)
        for numbers in self._numbers.values():
            numbers[...] = 0
        if self._neurons is not None:
            self._neurons.begin(first, count)

    def _show(self, first: int, count: int, step: int) -> None:
        """What the Input sends to the group from the step with index `step` on."""
        images = None
        if self._images is not None:
            chosen = self._images[first : first + count]
            images = self._nothing()
            images[:count] = chosen[:, step] if self._frames else chosen
        self._currents.begin(images)

    def _show_nothing(self) -> None:
        if self._images is not None:
            self._currents.begin(self._nothing())

    def _nothing(self) -> np.ndarray:
        return np.zeros((self._job.batch, *self._input_shape), np.float32)
