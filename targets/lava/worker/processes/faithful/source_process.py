"""The Lava process that holds the images, one after the other, each for as many steps as it is shown; or frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from job import Job, Node
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava_arguments import lava_shape, port_type, to_lava
from lava_ports import with_ports


class SourceProcess(AbstractProcess):
    """Sends each image for T steps, one after the other at the job's interval, and nothing in between and after.

    Lava's own buffer would have to hold every image T times.

    Args:
        job: What to run.
        node: The Input.
    """

    def __init__(self, *, job: Job, node: Node) -> None:
        super().__init__(job=job, node=node)
        self.s_out = OutPort(shape=lava_shape(node.shape))


class SourceModel(PyLoihiProcessModel):
    """Reads an image from the job's folder when its turn comes."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._job: Job = proc_params["job"]
        self._images = proc_params["node"].array("images")
        # The step from which on an image is no longer shown.
        self._shown: int = proc_params["node"].settings["shown"]
        # Whether the Input sends another image at each step.
        self._frames: bool = proc_params["node"].settings["frames"]
        self._image = np.zeros(0)

    def run_spk(self) -> None:
        """One step."""
        sample, t = divmod(self.time_step - 1, self._job.interval)
        if sample < self._job.samples and (t == 0 or (self._frames and t < self._job.steps)):
            image = self._images[sample, t] if self._frames else self._images[sample]
            self._image = to_lava(np.asarray(image, port_type(self._job)))
        if t == self._shown or sample == self._job.samples:
            self._image = np.zeros_like(self._image)
        self.s_out.send(self._image)


def source_process(job: Job, node: Node) -> SourceProcess:
    """A `SourceProcess` whose port is of the type that the job's numerics ask for."""
    return with_ports(SourceProcess, SourceModel, [], ["s_out"], port_type(job))(job=job, node=node)
