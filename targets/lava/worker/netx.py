"""Builds the Lava network of the netx back end: what lava-dl makes of an HDF5 file, with our neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compatibility import import_netx
from job import NETX_FILE, Job
from lava_arguments import lava_shape, to_lava
from protocol import JobError

if TYPE_CHECKING:
    from lava.magma.core.process.process import AbstractProcess

__all__ = ["build"]

_INPUT_BITS = 8


def build(job: Job) -> tuple[AbstractProcess, int]:
    """The network as netx loads it, connected to the images, and the number of Lava's steps to run.

    netx has no field for initial potentials and resets to zero. So potentials are set in what it has made, and its
    neurons are run by a model of ours.

    Raises:
        JobError: netx reads something else than was written.
    """
    netx = import_netx()
    from processes.faithful.source_process import source_process

    network = netx.Network(net_config=NETX_FILE, input_message_bits=_INPUT_BITS)
    entries = [entry for _, entry in sorted(network.net_config.f["layer"].items(), key=lambda item: int(item[0]))]
    written = [entry["neuron"] for entry in entries if "neuron" in entry]
    nodes = [node for node in job.nodes if node.kind in ("neuron", "output")]
    if not len(network.layers) == len(written) == len(nodes):
        raise JobError(f"netx has made {len(network.layers)} layers of the {len(nodes)} that were written.")
    for delay, (block, node, group) in enumerate(zip(network.layers, nodes, written, strict=True), 1):
        neuron = block.neuron
        if tuple(neuron.v.shape) != lava_shape(node.shape):
            raise JobError(
                f"netx has made node {node.name!r} of shape {tuple(neuron.v.shape)}, and it is {node.shape}."
            )
        if "v_init" in group:
            neuron.v.init = to_lava(group["v_init"][()])
        neuron.bias_exp.init = 0
        for key, value in (("job", job), ("node", node), ("delay", delay)):
            neuron.proc_params[key] = value
    entry = next(node for node in job.nodes if node.kind == "input")
    port = source_process(job, entry).s_out
    if len(network.inp.shape) == 1 and len(entry.shape) > 1:
        port = port.transpose([2, 1, 0]).flatten()
    port.connect(network.inp)
    return network, job.clock_steps(job.samples) + len(nodes)
