"""The model that runs the neurons of a network that netx has loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from job import Node
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF
from lava_arguments import from_lava
from sample_schedule import SampleSchedule


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SoftResetModel(PyLifModelBitAcc):
    """Lava's own neuron in its 24 bits, but for the reset by subtraction and the comparison >=.

    Lava puts everything that arrives 6 bits above the lowest one of a potential, for the sake of leaks that are not
    here. Without that all 24 bits are the network's.

    Each sample starts from the potentials that were set after loading, when its first current arrives. The readout
    is a layer whose currents are written in place of spikes.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.act_shift = self.vth_shift = 0
        self._node: Node = proc_params["node"]
        self._schedule = SampleSchedule(proc_params["job"], self._node, proc_params["delay"])
        self._start: np.ndarray | None = None
        self._bias = np.zeros(0)
        self._sample = -1

    def spiking_activation(self) -> np.ndarray:
        """At the threshold a neuron fires."""
        fired: np.ndarray = self.v >= self.effective_vth
        return fired

    def reset_voltage(self, spike_vector: np.ndarray) -> None:
        """The threshold is subtracted where a neuron has fired."""
        self.v[spike_vector] -= self.effective_vth

    def run_spk(self) -> None:
        """One step."""
        arriving = self.a_in.recv()
        scheduled = self._schedule.at(self.time_step)
        if self._start is None:
            self._start = self.v.copy()
            self.scale_bias()
            self.scale_threshold()
            self._bias = np.array(self.effective_bias)
        if scheduled is None:
            self.s_out.send(np.zeros(self.v.shape, np.int32))
            return
        if scheduled.number != self._sample:
            self._sample = scheduled.number
            self.u[:], self.v[:] = 0, self._start
        self.effective_bias: np.ndarray = self._bias if scheduled.constant is not None else np.zeros_like(self._bias)
        self.subthr_dynamics(activation_in=arriving)
        if scheduled.fires is None:
            self.s_out.send(np.zeros(self.v.shape, np.int32))
            return
        fired = self.spiking_activation()
        self.reset_voltage(spike_vector=fired)
        leaving = arriving + self._bias if self._node.kind == "output" else fired
        self._schedule.write(scheduled.number, scheduled.fires, from_lava(leaving, self._node.shape))
        self.s_out.send(fired.astype(np.int32))
