"""The Lava process of the batched back end.

Lava runs every module that lies beside a process of one's own, once for each process of the network, so
this folder holds nothing else.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from job import Job
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava_ports import with_ports
from layer import Layer
from layout import channels_first, channels_last, wire_shape
from stages import Stage


class InputLayer(NamedTuple):
    """A layer whose spikes come to a stage.

    Attributes:
        name: Of its node.
        shape: (channels, ...).
        lag: Steps that the stage is behind it.
    """

    name: str
    shape: tuple[int, ...]
    lag: int


class StageProcess(AbstractProcess):
    """A stage over a batch: one InPort for each layer that it takes spikes from, each (batch, ..., channels).

    Args:
        job: What to run.
        stage: This process's part.
        late: Steps that it is behind the first stage.
        input_layers: The layers that it takes spikes from. There may be more than the stage needs: Lava finds the
            processes of a network along its connections, so a layer that nothing needs sends its spikes here, too.
    """

    def __init__(self, *, job: Job, stage: Stage, late: int, input_layers: tuple[InputLayer, ...]) -> None:
        super().__init__(job=job, stage=stage, late=late, input_layers=input_layers)
        for place, source in enumerate(input_layers):
            setattr(self, f"s_in_{place}", InPort(shape=wire_shape(job.batch, source.shape)))
        self.s_out = OutPort(shape=wire_shape(job.batch, stage.node.shape))

    def port(self, place: int) -> InPort:
        """The InPort of the `place`-th layer that it takes spikes from."""
        return getattr(self, f"s_in_{place}")


class StageModel(PyLoihiProcessModel):
    """Receives, computes and sends within one step.

    What comes from a stage that is as late as this one is waited for. What comes from one that is ahead is
    received after all else is done, and kept until its step is due, so that both work at the same time.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        job, stage = proc_params["job"], proc_params["stage"]
        self._layer = Layer(job, stage, proc_params["late"])
        self._input_layers: tuple[InputLayer, ...] = proc_params["input_layers"]
        self._kept: list[deque[np.ndarray]] = [deque() for _ in self._input_layers]
        self._fires = stage.node.kind == "neuron"
        self._rest = np.zeros(wire_shape(job.batch, stage.node.shape), np.uint8)

    def run_spk(self) -> None:
        """One step."""
        self._receive(late=False)
        due = {
            source.name: channels_first(kept.popleft())
            for source, kept in zip(self._input_layers, self._kept, strict=True)
            if len(kept) > max(source.lag - 1, 0)
        }
        leaving = self._layer.advance(self.time_step, due)
        if self._fires:
            self.s_out.send(self._rest if leaving is None else channels_last(leaving))
        self._layer.record()
        self._receive(late=True)

    def _receive(self, *, late: bool) -> None:
        for place, (source, kept) in enumerate(zip(self._input_layers, self._kept, strict=True)):
            if (source.lag > 0) == late:
                kept.append(getattr(self, f"s_in_{place}").recv())


def stage_process(job: Job, stage: Stage, late: int, input_layers: tuple[InputLayer, ...]) -> StageProcess:
    """A `StageProcess` with one port for each layer of `input_layers`."""
    names = [f"s_in_{place}" for place in range(len(input_layers))]
    made = with_ports(StageProcess, StageModel, names, ["s_out"], np.uint8)
    return made(job=job, stage=stage, late=late, input_layers=input_layers)
