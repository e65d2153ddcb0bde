"""The Lava process of the faithful back end for a layer of neurons and for the readout.

Lava runs every module that lies beside a process of one's own, once for each process of the network, so
this folder holds nothing but processes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from input_schedule import InputSchedule
from job import Job, Node
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava_arguments import from_lava, lava_shape, port_type, to_lava
from lava_ports import with_ports


class NeuronProcess(AbstractProcess):
    """A layer of neurons, or the readout, behind Lava's own synapses.

    Args:
        job: What to run.
        node: The layer, or the Output.
        delay: Synapses between the Input and this layer, each of which costs one step.
        constant: What the biases of the synapses in front add to each step's current.
        unread: Shapes of layers whose spikes nothing needs; they come here so that Lava finds them.
    """

    def __init__(
        self,
        *,
        job: Job,
        node: Node,
        delay: int,
        constant: np.ndarray,
        unread: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        super().__init__(job=job, node=node, delay=delay, constant=constant, unread=len(unread))
        self.a_in = InPort(shape=lava_shape(node.shape))
        self.s_out = OutPort(shape=lava_shape(node.shape))
        for place, shape in enumerate(unread):
            setattr(self, f"unread_{place}", InPort(shape=lava_shape(shape)))


class NeuronModel(PyLoihiProcessModel):
    """Holds still until the first current has come through, and starts anew for each sample."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        node: Node = proc_params["node"]
        self._shape = node.shape
        self._schedule = InputSchedule(proc_params["job"], node, proc_params["delay"], proc_params["constant"])
        self._dtype = port_type(proc_params["job"])
        self._unread = range(proc_params["unread"])

    def run_spk(self) -> None:
        """One step."""
        current = from_lava(self.a_in.recv(), self._shape)
        for place in self._unread:
            getattr(self, f"unread_{place}").recv()
        spikes = self._schedule.step(self.time_step, current)
        self.s_out.send(to_lava(spikes.astype(self._dtype)))


def neuron_process(
    job: Job, node: Node, delay: int, constant: np.ndarray, unread: tuple[tuple[int, ...], ...] = ()
) -> NeuronProcess:
    """A `NeuronProcess` with one more port for each of `unread`."""
    names = ["a_in", *(f"unread_{place}" for place in range(len(unread)))]
    made = with_ports(NeuronProcess, NeuronModel, names, ["s_out"], port_type(job))
    return made(job=job, node=node, delay=delay, constant=constant, unread=unread)
