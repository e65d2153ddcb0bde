"""Builds the Lava network of the batched back end: one process for each stage, nothing late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job import Job
from stages import cut

if TYPE_CHECKING:
    from lava.magma.core.process.process import AbstractProcess

__all__ = ["build"]


def build(job: Job) -> tuple[AbstractProcess, int]:
    """The readout's process, connected to all others, and the number of Lava's steps to run."""
    from processes.batched.stage_process import stage_process

    stages = cut(job.nodes)
    heard = {node.name for stage in stages for node in stage.sources}
    unheard = [stage.node for stage in stages if stage.node.kind == "neuron" and stage.node.name not in heard]
    processes = {}
    for stage in sorted(stages, key=lambda stage: stage.node.kind == "output"):
        last = stage.node.kind == "output"
        heard_here = [*stage.sources, *(unheard if last else [])]
        process = stage_process(job, stage, tuple(node.shape for node in heard_here))
        processes[stage.node.name] = process
        for place, node in enumerate(heard_here):
            processes[node.name].s_out.connect(process.port(place))
    groups = -(-job.samples // job.batch)
    readout = next(stage.node.name for stage in stages if stage.node.kind == "output")
    return processes[readout], groups * job.steps
