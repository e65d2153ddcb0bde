"""When a current of the faithful back end counts, free of Lava."""

from __future__ import annotations

import numpy as np
from job import Job, Node
from neurons import Neurons
from sample_schedule import SampleSchedule

__all__ = ["InputSchedule"]


class InputSchedule:
    """A layer of neurons, or the readout, `delay` synapses away from the Input.

    Outside its window it holds still: it integrates no bias and sends no spike. Potentials are float64, as all
    that Lava's synapses send, or int32.

    Args:
        job: What to run.
        node: The layer, or the Output.
        delay: Steps that the first current takes to come here.
        constant: Of node's shape, added to the current of each step: the biases of the synapses in front.
    """

    def __init__(self, job: Job, node: Node, delay: int, constant: np.ndarray) -> None:
        self._schedule, self._constant = SampleSchedule(job, node, delay), constant
        self._sample = -1
        self._none = np.zeros(node.shape, bool)
        potential = np.int32 if job.integers else np.float64
        self._neurons = Neurons(node, 1, potential) if node.kind == "neuron" else None

    def step(self, time_step: int, current: np.ndarray) -> np.ndarray:
        """One step of Lava, counted from 1: the spikes that leave, of node's shape."""
        scheduled = self._schedule.at(time_step)
        if scheduled is None:
            return self._none
        if self._neurons is None:
            if scheduled.fires is not None:
                self._schedule.write(scheduled.number, scheduled.fires, current + self._constant)
            return self._none
        if scheduled.number != self._sample:
            self._sample = scheduled.number
            self._neurons.begin(scheduled.number, 1)
        whole = current if scheduled.constant is None else current + self._constant
        self._neurons.charge(scheduled.constant, whole[None])
        if scheduled.fires is None:
            return self._none
        leaving: np.ndarray = self._neurons.fire()[0]
        self._schedule.write(scheduled.number, scheduled.fires, leaving)
        return leaving
