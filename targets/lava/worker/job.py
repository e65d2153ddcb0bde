"""A job for Lava: the nodes of a network, with their arrays.

The worker's current folder is the job's, so every file is named without a path. This module needs only
the standard library until an array is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol import JobError, read_document

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NETX_FILE", "PROGRESS_FILE", "Job", "Node", "read_job"]

PROGRESS_FILE = "progress.npy"
NETX_FILE = "network.hdf5"


@dataclass(frozen=True)
class Node:
    """A node of the network.

    Attributes:
        index: Its place in the job, which names its result files.
        name: In the network.
        kind: "input", "output", "neuron", or a synapse: see `operations.create`.
        inputs: The nodes that feed it; several are added.
        shape: Of its output, without the batch axis.
        settings: Whatever else the job says of it.
        arrays: File names by what they hold.
    """

    index: int
    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    arrays: Mapping[str, str]

    @property
    def opens(self) -> int:
        """Steps of a sample's clock before this layer may fire, or before this Output is read."""
        return int(self.settings.get("opens", 0))

    def array(self, key: str) -> np.ndarray | None:
        """The array `key`, mapped into memory, or None if the node has none.

        Raises:
            JobError: The file is not a plain .npy array.
        """
        import numpy as np

        if key not in self.arrays:
            return None
        try:
            array: np.ndarray = np.load(self.arrays[key], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise JobError(f"Node {self.name!r}: its array {key!r} cannot be read: {error}") from error
        return array


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        backend: "batched", "faithful" or "netx".
        steps: T.
        layerwise: Whether a layer adds up all T steps of what feeds it before it fires.
        interval: Steps after which the next sample, or group of samples, may follow.
        samples: N.
        batch: Samples that one group of the batched back end holds.
        cores: Processor cores that the batched back end should keep busy.
        integers: Whether potentials are integers of 24 bits, and all sums exact.
        record_spikes: Whether to write every spike.
        nodes: In topological order.
        parent: The process that waits for the result, or None if nobody does.
        segment_prefix: What the names of this job's shared memory begin with.
        deadline: Seconds after which the worker gives up by itself.
    """

    backend: str
    steps: int
    layerwise: bool
    interval: int
    samples: int
    batch: int
    cores: int
    integers: bool
    record_spikes: bool
    nodes: tuple[Node, ...]
    parent: int | None
    segment_prefix: str
    deadline: float

    def clock_steps(self, count: int) -> int:
        """Steps until the last window of the last of `count` samples, or groups of them, has closed, nothing late."""
        return (count - 1) * self.interval + max(node.opens for node in self.nodes) + self.steps


def _node(index: int, entry: Mapping[str, Any]) -> Node:
    known = ("name", "kind", "inputs", "shape", "arrays")
    arrays = dict(entry["arrays"])
    for file in arrays.values():
        if Path(file).name != file:
            raise JobError(f"Node {entry['name']!r} names the file {file!r}, which is not in the job's folder.")
    return Node(
        index=index,
        name=entry["name"],
        kind=entry["kind"],
        inputs=tuple(entry["inputs"]),
        shape=tuple(entry["shape"]),
        settings={key: value for key, value in entry.items() if key not in known},
        arrays=arrays,
    )


def read_job() -> Job:
    """Reads job.json of the current folder.

    Raises:
        JobError: It is missing, is not JSON, lacks an entry, or is of another version of the protocol.
    """
    document = read_document()
    try:
        return Job(
            backend=document["backend"],
            steps=int(document["steps"]),
            layerwise=document["schedule"] == "layerwise",
            interval=int(document["interval"]),
            samples=int(document["samples"]),
            batch=int(document["batch"]),
            cores=int(document["cores"]),
            integers=bool(document["integers"]),
            record_spikes=bool(document["record_spikes"]),
            nodes=tuple(_node(index, entry) for index, entry in enumerate(document["nodes"])),
            parent=document["parent"],
            segment_prefix=document["segment_prefix"],
            deadline=float(document["deadline"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"The job in {Path.cwd()} is malformed: {type(error).__name__}: {error}") from error
