"""What a worker has written: nothing of it is trusted before it is known to be what it should be."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.bundle.golden import unpacked
from cos_export.errors import InputError, TargetError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork
from cos_export.reading.json_file import read_json
from cos_export.reading.npy_header import read_header
from cos_export.reading.plain_file import open_plain
from cos_export.simulation import mean_readout
from cos_export.simulation.trace import Recording, Trace
from targets.workers.job import PROTOCOL, Job

__all__ = ["Result", "read_result", "read_trace"]


@dataclass(frozen=True)
class Result:
    """What the worker says of its job's end.

    Attributes:
        status: "done" or "failed".
        cause: Of a failure: "job", "environment", "network" if the software cannot express it, or "run".
        message: What went wrong.
        traceback: Where, or empty.
    """

    status: str
    cause: str = ""
    message: str = ""
    traceback: str = ""


def read_result(job: Job) -> Result | None:
    """What result.json says, or None if the worker has written none.

    Raises:
        TargetError: It is not a regular file, or not what this version of the protocol has.
    """
    path, title = job.folder / "result.json", job.software.title
    if not os.path.lexists(path):
        return None
    try:
        document = read_json(path, links=False)
    except InputError as error:
        raise TargetError(f"The {title} worker's answer cannot be read: {error}") from error
    version = document.get("protocol") if isinstance(document, dict) else None
    if version != PROTOCOL:
        raise TargetError(
            f"The {title} worker answered in version {version} of the protocol, and version {PROTOCOL} "
            "was expected: the installation of cos-export is mixed up. Install it anew."
        )
    known = {key: document.get(key, "") for key in ("status", "cause", "message", "traceback")}
    if not all(isinstance(value, str) for value in known.values()) or known["status"] not in ("done", "failed"):
        raise TargetError(f"The {title} worker's answer is malformed: {str(document)[:200]!r}.")
    return Result(**known)


def read_trace(
    job: Job, network: SpikingNetwork, steps: int, *, record_spikes: bool, states: SampleStates | None
) -> Trace:
    """The trace of a job that is done: outputs.npy, and a file of packed spikes for each layer.

    The files of spikes are numbered by the layers' places in the network's order of nodes.

    Raises:
        TargetError: A result is missing or has the wrong shape.
    """
    outputs: FloatArray = _load(job, "outputs.npy", (steps, job.samples, *network.output_shape), np.float32)
    logits = mean_readout(torch.from_numpy(outputs), steps, network.quantisation).numpy()
    recording = Recording(network, job.samples, steps, spikes=record_spikes)
    if record_spikes:
        for index, name in enumerate(network.order):
            if name in network.neurons:
                shape = network.neurons[name].shape
                count = math.prod(shape)
                packed = _load(job, f"spikes_{index}.npy", (steps, job.samples, -(-count // 8)), np.uint8)
                for block in recording.spikes.blocks(steps * count):
                    recording.spikes.add(name, unpacked(packed[:, block], shape))
    recording.add(Trace(logits))
    return replace(recording.trace(), states=states)


def _load(job: Job, file_name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """An array that the worker has written. Nothing is allocated before it is known to be what it should be."""
    path, called = job.folder / file_name, f"The {job.software.title} worker"
    try:
        with open_plain(path, links=False) as file:
            header = read_header(file, path.name)
            if header.shape != shape or header.dtype != dtype or (header.fortran_order and len(shape) > 1):
                raise TargetError(
                    f"{called}'s result {path.name} has shape {header.shape} and type {header.dtype}; "
                    f"{shape} and {np.dtype(dtype)} were expected."
                )
            size = os.fstat(file.fileno()).st_size
            if size != header.start + header.nbytes:
                raise TargetError(
                    f"{called}'s result {path.name} has {size:,} bytes, and {header.start + header.nbytes:,} "
                    "were expected."
                )
            return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    except InputError as error:
        raise TargetError(f"{called} is done, and its result {path.name} cannot be read: {error}") from error
