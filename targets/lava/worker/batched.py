"""Builds the Lava network of the batched back end: one process for each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job import Job, Node
from pipeline import segments
from stages import cut

if TYPE_CHECKING:
    from lava.magma.core.process.process import AbstractProcess

__all__ = ["build"]


def build(job: Job) -> tuple[AbstractProcess, int]:
    """The readout's process, connected to all others, and the number of Lava's steps to run."""
    from processes.batched.stage_process import InputLayer, stage_process

    stages = sorted(cut(job.nodes), key=lambda stage: stage.node.kind == "output")
    late = segments(stages, job.cores, job.interval, each_step=not job.layerwise)
    needed = {node.name for stage in stages for node in stage.sources}
    unread = [stage.node for stage in stages if stage.node.kind == "neuron" and stage.node.name not in needed]
    processes = {}
    for stage in stages:
        name, last = stage.node.name, stage.node.kind == "output"
        input_layers = tuple(
            InputLayer(node.name, node.shape, late[name] - late[node.name] + _waits(job, stage.node, node))
            for node in [*stage.sources, *(unread if last else [])]
        )
        processes[name] = stage_process(job, stage, late[name], input_layers)
        for place, source in enumerate(input_layers):
            processes[source.name].s_out.connect(processes[name].port(place))
    groups = -(-job.samples // job.batch)
    readout = stages[-1].node
    return processes[readout.name], job.clock_steps(groups) + max(late.values())


def _waits(job: Job, node: Node, source: Node) -> int:
    """Steps that a layer's spikes wait for the readout, which takes the first of each in the same step.

    A layer of neurons adds them up as they come.
    """
    return max(node.opens - source.opens, 0) if job.layerwise and node.kind == "output" else 0
