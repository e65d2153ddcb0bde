"""The Lava process of the batched back end.

Lava runs every module that lies beside a process of one's own, once for each process of the network, so
this folder holds nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from job import Job
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava_ports import with_in_ports
from layer import Layer
from stages import Stage


class StageProcess(AbstractProcess):
    """A stage over a batch: one InPort for each layer of neurons that it hears, each (batch, ...).

    Args:
        job: What to run.
        stage: This process's part.
        shapes: Of the layers that it hears. There may be more than the stage needs: Lava finds the processes
            of a network along its connections, so a layer that nothing needs sends its spikes here, too.
    """

    def __init__(self, *, job: Job, stage: Stage, shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(job=job, stage=stage, ports=len(shapes))
        for place, shape in enumerate(shapes):
            setattr(self, f"s_in_{place}", InPort(shape=(job.batch, *shape)))
        self.s_out = OutPort(shape=(job.batch, *stage.node.shape))

    def port(self, place: int) -> InPort:
        """The InPort of the `place`-th layer that it hears."""
        return getattr(self, f"s_in_{place}")


class StageModel(PyLoihiProcessModel):
    """Receives, computes and sends within one step."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._layer = Layer(proc_params["job"], proc_params["stage"])
        self._ports = range(proc_params["ports"])

    def run_spk(self) -> None:
        """One step."""
        arrived = [getattr(self, f"s_in_{place}").recv() for place in self._ports]
        needed = [node.name for node in self._layer.sources]
        leaving = self._layer.advance(self.time_step, dict(zip(needed, arrived, strict=False)))
        if leaving.dtype == bool:
            self.s_out.send(leaving)
        self._layer.record()


def stage_process(job: Job, stage: Stage, shapes: tuple[tuple[int, ...], ...]) -> StageProcess:
    """A `StageProcess` with one port for each of `shapes`."""
    names = [f"s_in_{place}" for place in range(len(shapes))]
    return with_in_ports(StageProcess, StageModel, names, np.float32)(job=job, stage=stage, shapes=shapes)
