"""A job for Lava's worker: a network's nodes as lowered, one entry and a few arrays each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.windows import windows
from targets.lava.environment import LAVA
from targets.lava.lowered_node import LoweredNode
from targets.workers.job import Job, write_job_file

__all__ = ["NETX_FILE", "Backend", "write_job"]

NETX_FILE = "network.hdf5"

Backend = Literal["batched", "faithful", "netx"]


def write_job(
    folder: Path,
    network: SpikingNetwork,
    nodes: Mapping[str, LoweredNode],
    *,
    backend: Backend,
    steps: int,
    samples: int,
    batch: int,
    cores: int,
    record_spikes: bool,
    deadline: float,
) -> Job:
    """Writes a job.

    Args:
        folder: An empty folder.
        network: For its wiring, shapes and numerics.
        nodes: Its nodes as lowered, in topological order.
        backend: Which part of the worker runs it; "netx" needs the file NETX_FILE in the folder, too.
        steps: T.
        samples: N.
        batch: Samples held at once by the batched back end.
        cores: Processor cores that the batched back end should keep busy.
        record_spikes: Whether every spike is wanted.
        deadline: Seconds it may take.
    """
    entries = []
    for index, (name, node) in enumerate(nodes.items()):
        files = {}
        for key, array in node.arrays.items():
            files[key] = f"{index}_{key}.npy"
            np.save(folder / files[key], array, allow_pickle=False)
        entries.append(
            {
                "name": name,
                "kind": node.kind,
                "inputs": list(network.predecessors[name]),
                "shape": list(network.shapes[name]),
                "arrays": files,
                **node.settings,
            }
        )
    document = {
        "backend": backend,
        "steps": steps,
        "schedule": network.schedule,
        "interval": windows(network, steps).interval if network.schedule == "layerwise" else steps,
        "batch": batch,
        "cores": cores,
        "integers": network.quantisation is not None,
        "record_spikes": record_spikes,
        "nodes": entries,
    }
    return write_job_file(folder, LAVA, document, samples=samples, deadline=deadline)
