"""What a client needs of a NIR file: nodes, edges, and the metadata of schema "cos-export/1" (docs/formats.md).

This is a reader of its own, not `cos_export.nir_file`, because that builds on the nir library, of which clients pin
other versions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.reading.hdf5_process import Tree, read_tree

__all__ = ["Array", "Encoding", "InputIntegers", "Layer", "NirGraph", "read_graph"]

Array = NDArray[Any]

_SCHEMA = "cos-export/1"
_CONTRACT: Mapping[str, Any] = {
    "readout": "mean",
    "update_order": "charge,fire,reset",
    "dt": 1.0,
    "spike_amplitude": 1.0,
    "v_init_encoding": "metadata",
}
_ENCODINGS = ("constant", "constant_then_zero", "frames")


@dataclass(frozen=True)
class Layer:
    """A spiking node.

    Attributes:
        name: In the graph.
        threshold: theta, of the layer's shape.
        v_init: v(0), likewise.
        strict: Whether it fires above its threshold only, and not at it; None where no potential can tie with it.
        v_reset: What it is reset to where it fires; None if theta is subtracted.
        bias: beta, (steps, channels), or None.
        silent: Neurons whose spikes are dropped, or None.
    """

    name: str
    threshold: Array
    v_init: Array
    strict: bool | None
    v_reset: Array | None
    bias: Array | None
    silent: Array | None


@dataclass(frozen=True)
class InputIntegers:
    """How an image becomes integers: x = clip(round(image * float32(1 / scale)), minimum, maximum), half to even."""

    scale: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Encoding:
    """What the Input sends.

    Attributes:
        frames: Whether each step has an image of its own; else it is the same at every step.
        held: Steps for which it is sent, and zero after them; None for all.
    """

    frames: bool
    held: int | None


@dataclass(frozen=True)
class NirGraph:
    """A network as its file has it.

    Attributes:
        nodes: By name, type and fields.
        sources: By name, the nodes that feed a node; what they send is added.
        order: The names, each after what feeds it.
        layers: The spiking nodes.
        steps: T that the file was made for, or None if it does not say.
        layerwise: Whether a layer adds up all T steps of its input before it fires.
        encoding: What the Input sends.
        integers: How images are rounded, in a network of integers; else None.
        readout_scale: What 1 stands for at the Output of a network of integers; else None.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    layers: Mapping[str, Layer]
    steps: int | None
    layerwise: bool
    encoding: Encoding
    integers: InputIntegers | None
    readout_scale: float | None

    @property
    def output(self) -> str:
        """The name of the Output."""
        return next(name for name, node in self.nodes.items() if node["type"] == "Output")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an image, without the batch axis."""
        shape = next(node for node in self.nodes.values() if node["type"] == "Input")["shape"]
        return tuple(int(size) for size in np.atleast_1d(shape))


def read_graph(path: str | os.PathLike[str]) -> NirGraph:
    """Reads a NIR file of this project.

    Raises:
        InputError: It is not a file, or not one of HDF5 that is read within limits.
        NetworkError: It does not hold a network of schema "cos-export/1".
    """
    content = read_tree(Path(path), "node")
    metadata = content.get("metadata") or {}
    if not isinstance(metadata, Mapping) or metadata.get("schema") != _SCHEMA:
        raise NetworkError(
            f"{path} is not of schema {_SCHEMA!r}: initial potentials, reset and comparison of its neurons are not "
            "said. Read it with cos_export.read_nir and write it with cos_export.write_nir."
        )
    try:
        return _graph(content, metadata)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(f"{path} is not whole: {type(error).__name__}: {error}") from error


def _graph(content: Tree, metadata: Mapping[str, Any]) -> NirGraph:
    for key, value in _CONTRACT.items():
        if metadata.get(key, value) != value:
            raise NetworkError(f"The graph's metadata says {key} = {metadata[key]!r}, and only {value!r} can be run.")
    nodes: dict[str, Any] = dict(content["nodes"])
    edges = [(str(source), str(target)) for source, target in content["edges"]]
    if any(name not in nodes for edge in edges for name in edge):
        raise NetworkError("An edge of the graph leads to a node that the graph does not have.")
    sources = {name: tuple(source for source, target in edges if target == name) for name in nodes}
    if sum(node["type"] == "Output" for node in nodes.values()) != 1:
        raise NetworkError("The graph does not have one Output.")
    whole = metadata.get("numerics", "float32") != "float32"
    return NirGraph(
        nodes=nodes,
        sources=sources,
        order=_sorted(sources),
        layers={name: _layer(name, node, whole) for name, node in nodes.items() if node["type"] == "IF"},
        steps=int(metadata["num_timesteps"]) if "num_timesteps" in metadata else None,
        layerwise=metadata.get("schedule", "synchronous") == "layerwise",
        encoding=_encoding(metadata),
        integers=InputIntegers(*(float(metadata[f"input_{key}"]) for key in ("scale", "minimum", "maximum")))
        if whole
        else None,
        readout_scale=float(metadata["readout_scale"]) if whole else None,
    )


def _encoding(metadata: Mapping[str, Any]) -> Encoding:
    word = metadata.get("input_encoding", "constant")
    if word not in _ENCODINGS:
        raise NetworkError(f"The graph's metadata says input_encoding = {word!r}; known are {', '.join(_ENCODINGS)}.")
    return Encoding(word == "frames", int(metadata["input_steps"]) if word == "constant_then_zero" else None)


def _layer(name: str, node: Mapping[str, Any], whole: bool) -> Layer:
    said, threshold = node.get("metadata", {}), np.asarray(node["v_threshold"], np.float32)
    if np.any(np.asarray(node["r"]) != 1):
        raise NetworkError(f"Layer {name!r} has r other than 1, which files of this project do not have.")
    v_init = np.asarray(said["v_init"], np.float32)
    if v_init.shape != threshold.shape:
        raise NetworkError(f"Layer {name!r} has v_init of shape {v_init.shape}, and thresholds of {threshold.shape}.")
    by_value = said["reset_mechanism"] == "value"
    return Layer(
        name=name,
        threshold=threshold,
        v_init=v_init,
        # Integers start from half-integers, and no potential ties with a threshold.
        strict=None if whole else said["spike_condition"] == ">",
        v_reset=np.broadcast_to(np.asarray(node["v_reset"], np.float32), threshold.shape) if by_value else None,
        bias=None if said.get("v_bias") is None else np.asarray(said["v_bias"], np.float32),
        silent=None if said.get("silent") is None else np.asarray(said["silent"]) != 0,
    )


def _sorted(sources: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The nodes, each after all that feed it.

    Raises:
        NetworkError: There is a loop.
    """
    order: list[str] = []
    left = dict.fromkeys(sources)
    while left:
        ready = [name for name in left if not any(source in left for source in sources[name])]
        if not ready:
            raise NetworkError(f"The graph has a loop through {', '.join(sorted(left)[:4])}.")
        order += ready
        for name in ready:
            del left[name]
    return tuple(order)
