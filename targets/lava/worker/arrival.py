"""When a current of the faithful back end counts, free of Lava."""

from __future__ import annotations

import numpy as np
from job import PROGRESS_FILE, Job, Node
from neurons import Neurons, Outputs, Spikes

__all__ = ["Arrival"]


class Arrival:
    """A layer of neurons, or the readout, `delay` synapses away from the Input.

    Every synapse sends what it received one step before. So at Lava's step k = 1, 2, ... this layer gets
    the current of step (k - 1 - delay) mod T of sample (k - 1 - delay) div T. Before that it holds still:
    it integrates no bias and sends no spike. Potentials are float64, as all that Lava's synapses send.

    Args:
        job: What to run.
        node: The layer, or the Output.
        delay: Steps that the first current takes to come here.
        constant: Of node's shape, added to the current of each step: the biases of the synapses in front.
    """

    def __init__(self, job: Job, node: Node, delay: int, constant: np.ndarray) -> None:
        self._job, self._delay, self._constant = job, delay, constant
        self._none = np.zeros(node.shape, bool)
        self._neurons = Neurons(node, 1, np.float64) if node.kind == "neuron" else None
        self._file: Spikes | Outputs | None = None
        self._counter: np.ndarray | None = None
        if node.kind == "output":
            self._file = Outputs(job, node)
            self._counter = np.load(PROGRESS_FILE, mmap_mode="r+", allow_pickle=False)
        elif job.record_spikes:
            self._file = Spikes(job, node)

    def step(self, time_step: int, current: np.ndarray) -> np.ndarray:
        """One step of Lava, counted from 1: the spikes that leave, of node's shape."""
        sample, t = divmod(time_step - 1 - self._delay, self._job.steps)
        if not 0 <= sample < self._job.samples:
            return self._none
        whole = (current + self._constant)[None]
        leaving = whole
        if self._neurons is not None:
            if t == 0:
                self._neurons.begin(sample, 1)
            leaving = self._neurons.step(t, whole)
        if self._file is not None:
            self._file.write(t, sample, 1, leaving)
        if self._counter is not None:
            self._counter[0] = sample + (t == self._job.steps - 1)
        return leaving[0] if self._neurons is not None else self._none
