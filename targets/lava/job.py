"""The job folder, seen from the parent: writes what to run, reads what came of it."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.errors import InputError, TargetError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork
from cos_export.network.schedule import windows
from cos_export.reading.json_file import read_json
from cos_export.reading.npz import read_header
from cos_export.reading.plain_file import open_plain
from cos_export.simulation import mean_readout
from cos_export.simulation.trace import Trace
from targets.lava.lowered_node import LoweredNode

__all__ = ["NETX_FILE", "PROTOCOL", "Backend", "Job", "Result", "read_result", "read_trace", "write_job"]

PROTOCOL = 5
"""Of the job folder; the worker refuses any other."""

NETX_FILE = "network.hdf5"

Backend = Literal["batched", "faithful", "netx"]


@dataclass(frozen=True)
class Job:
    """A job that has been written.

    Attributes:
        folder: Where.
        segment_prefix: What the names of its shared memory begin with.
        samples: N.
        deadline: Seconds it may take.
    """

    folder: Path
    segment_prefix: str
    samples: int
    deadline: float


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
    job = Job(folder, f"cosl_{secrets.token_hex(4)}_", samples, deadline)
    document = {
        "protocol": PROTOCOL,
        "backend": backend,
        "steps": steps,
        "schedule": network.schedule,
        "interval": windows(network, steps).interval if network.schedule == "layerwise" else steps,
        "samples": samples,
        "batch": batch,
        "cores": cores,
        "integers": network.quantisation is not None,
        "record_spikes": record_spikes,
        "parent": os.getpid(),
        "segment_prefix": job.segment_prefix,
        "deadline": deadline,
        "nodes": entries,
    }
    (folder / "job.json").write_text(json.dumps(document), encoding="utf-8")
    return job


@dataclass(frozen=True)
class Result:
    """What the worker says of its job's end.

    Attributes:
        status: "done" or "failed".
        cause: Of a failure: "job", "environment" or "run".
        message: What went wrong.
        traceback: Where, or empty.
    """

    status: str
    cause: str = ""
    message: str = ""
    traceback: str = ""


def read_result(folder: Path) -> Result | None:
    """What result.json says, or None if the worker has written none.

    Raises:
        TargetError: It is not a regular file, or not what this version of the protocol has.
    """
    path = folder / "result.json"
    if not os.path.lexists(path):
        return None
    try:
        document = read_json(path, links=False)
    except InputError as error:
        raise TargetError(f"The Lava worker's answer cannot be read: {error}") from error
    version = document.get("protocol") if isinstance(document, dict) else None
    if version != PROTOCOL:
        raise TargetError(
            f"The Lava worker answered in version {version} of the protocol, and version {PROTOCOL} "
            "was expected: the installation of cos-export is mixed up. Install it anew."
        )
    known = {key: document.get(key, "") for key in ("status", "cause", "message", "traceback")}
    if not all(isinstance(value, str) for value in known.values()) or known["status"] not in ("done", "failed"):
        raise TargetError(f"The Lava worker's answer is malformed: {str(document)[:200]!r}.")
    return Result(**known)


def read_trace(
    job: Job, network: SpikingNetwork, steps: int, *, record_spikes: bool, states: SampleStates | None
) -> Trace:
    """The trace of a job that is done.

    Raises:
        TargetError: A result is missing or has the wrong shape.
    """
    shape = (steps, job.samples, *network.output_shape)
    outputs: FloatArray = _load(job.folder / "outputs.npy", shape, np.float32)
    scale = network.readout_scale
    logits = mean_readout(torch.from_numpy(outputs), steps, scale).numpy()
    spikes: dict[str, NDArray[np.bool_]] = {}
    if record_spikes:
        for index, name in enumerate(network.order):
            if name in network.neurons:
                spikes[name] = _unpack(job, index, steps, network.neurons[name].shape)
    return Trace(logits=logits, spikes=spikes, states=states)


def _unpack(job: Job, index: int, steps: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    count = int(np.prod(shape))
    packed = _load(job.folder / f"spikes_{index}.npy", (steps, job.samples, -(-count // 8)), np.uint8)
    return np.unpackbits(packed, axis=-1, count=count).view(np.bool_).reshape(steps, job.samples, *shape)


def _load(path: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """An array that the worker has written. Nothing is allocated before it is known to be what it should be."""
    try:
        with open_plain(path, links=False) as file:
            header = read_header(file, path.name)
            if header.shape != shape or header.dtype != dtype or (header.fortran_order and len(shape) > 1):
                raise TargetError(
                    f"The Lava worker's result {path.name} has shape {header.shape} and type {header.dtype}; "
                    f"{shape} and {np.dtype(dtype)} were expected."
                )
            size = os.fstat(file.fileno()).st_size
            if size != header.start + header.nbytes:
                raise TargetError(
                    f"The Lava worker's result {path.name} has {size:,} bytes, and {header.start + header.nbytes:,} "
                    "were expected."
                )
            return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    except InputError as error:
        raise TargetError(f"The Lava worker is done, and its result {path.name} cannot be read: {error}") from error
