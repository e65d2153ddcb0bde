"""Networks as NIR files: ours whole and bit for bit, and those of other tools in NIR's own meaning."""

from __future__ import annotations

import copy
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import nir
import numpy as np

from cos_export.atomic_file import written_whole
from cos_export.errors import CosExportError, InputError, NetworkError
from cos_export.graph import convolution, pooling
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.nir_import import import_graph
from cos_export.nir_metadata import GRAPH_KEYS, NODE_KEYS, graph_metadata, neuron_metadata, others

__all__ = ["read_nir", "write_nir"]

_DERIVED = frozenset({"input_type", "output_type", "metadata"})


def write_nir(network: SpikingNetwork, path: str | os.PathLike[str], *, strip_v_reset: bool = False) -> None:
    """Writes a network as a NIR file that any NIR reader can load.

    What NIR has no field for goes into metadata (see `nir_metadata`). The file is read again and compared
    with the network bit for bit before it is moved into place, so a file at `path` is a good one.
    The network and its graph stay as they are.

    Args:
        network: What to write.
        path: The file; one that is there is replaced.
        strip_v_reset: Leave out the `v_reset` fields, on which readers of nir 1.0.4 and older fail.

    Raises:
        NetworkError: A node's name or field cannot be kept in a file, or the file did not read back.
        InputError: The file cannot be written, or `strip_v_reset` would change the network.
    """
    if strip_v_reset:
        _check_resets_to_zero(network)
    graph = _portable(network)
    with written_whole(path) as draft:
        try:
            nir.write(draft, graph)
            if strip_v_reset:
                _strip_v_reset(draft)
        except (TypeError, ValueError) as error:
            raise NetworkError(f"The network cannot be written as NIR: {error}") from error
        try:
            found = read_nir(draft)
        except CosExportError as error:
            raise NetworkError(f"The NIR file that was written does not read back: {error}") from error
        difference = _difference(network, graph, found)
        if difference:
            raise NetworkError(f"The NIR file that was written differs from the network: {difference}.")


def read_nir(
    path: str | os.PathLike[str],
    *,
    reset: Literal["subtract", "value"] | None = None,
    condition: Literal[">=", ">"] | None = None,
    dt: float | None = None,
) -> SpikingNetwork:
    """Reads a network of integrate-and-fire neurons from a NIR file, whichever tool has written it.

    What our metadata does not say has NIR's own meaning: a neuron fires strictly above its threshold, is
    reset to `v_reset` and starts at 0. For such files `reset` and `condition` say otherwise.

    A NIR neuron charges by r * dt * I. Where r * dt is 1 (to float32's rounding) nothing changes; elsewhere
    the threshold, v_reset and the initial potential are divided by r * dt, which gives the same spikes with
    r = 1, up to the rounding of that division.

    Args:
        path: The file.
        reset: How a neuron is reset, in a file that does not say.
        condition: When a neuron fires, in a file that does not say.
        dt: Length of a step in the unit of r, in a file that does not say; 1 if neither says.

    Returns:
        The network. Nodes are listed by name, as the file has them.

    Raises:
        InputError: There is no such file, it is no HDF5 file, or an argument contradicts it.
        NetworkError: What it holds is no feed-forward network of integrate-and-fire neurons.
    """
    return import_graph(_read_graph(Path(path)), reset=reset, condition=condition, dt=dt)


# --- writing ---------------------------------------------------------------------------------------------


def _check_resets_to_zero(network: SpikingNetwork) -> None:
    for name, spec in network.neurons.items():
        if spec.reset == "value" and np.any(spec.v_reset):
            raise InputError(f"Node {name!r} is reset to a value other than 0, so its v_reset cannot be stripped.")


def _strip_v_reset(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for node in file["node/nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]


def _portable(network: SpikingNetwork) -> nir.NIRGraph:
    """A copy of the graph with every optional field filled in and spelled as most readers expect."""
    for name in network.graph.nodes:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise NetworkError(f"Node name {name!r} cannot be kept in a NIR file: rename it, without '/'.")
    return nir.NIRGraph(
        # HDF5 lists them by name; in that order equal networks also give equal bytes.
        nodes={name: _portable_node(name, network) for name in sorted(network.graph.nodes)},
        edges=[(str(source), str(target)) for source, target in network.graph.edges],
        metadata={**others(network.graph.metadata, GRAPH_KEYS), **graph_metadata(network)},
        # NIR's own check is wrong for grouped and non-square convolutions; shapes were checked by ours.
        type_check=False,
    )


def _portable_node(name: str, network: SpikingNetwork) -> nir.NIRNode:
    node = network.graph.nodes[name]
    metadata = others(node.metadata, NODE_KEYS)
    if isinstance(node, nir.IF):
        spec = _stored(network.neurons[name])
        return nir.IF(
            r=np.ones_like(spec.threshold),
            v_threshold=spec.threshold,
            v_reset=np.zeros_like(spec.threshold) if spec.v_reset is None else spec.v_reset,
            metadata=metadata | neuron_metadata(spec),
        )
    result = copy.copy(node)
    result.metadata = metadata
    for entry in fields(node):
        if entry.name not in _DERIVED:
            setattr(result, entry.name, _plain(getattr(node, entry.name)))
    shape = np.array(network.shapes[name])
    arriving = np.array(network.shapes[network.predecessors[name][0]]) if network.predecessors[name] else shape
    result.input_type, result.output_type = {"input": arriving}, {"output": shape}
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        _spell_convolution(result, arriving)
    elif isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        window = pooling(node)
        result.kernel_size, result.stride, result.padding = map(
            np.array, (window.kernel, window.stride, window.padding)
        )
    return result


def _stored(spec: NeuronSpec) -> NeuronSpec:
    """The neurons as a file holds them: in float32, which every run uses, and without a v_reset that is unused."""

    def cast(array: Any) -> Any:
        return None if array is None else np.asarray(array, np.float32)

    return replace(
        spec,
        threshold=cast(spec.threshold),
        v_init=cast(spec.v_init),
        v_reset=cast(spec.v_reset) if spec.reset == "value" else None,
        bias=cast(spec.bias),
        silent=None if spec.silent is None else np.asarray(spec.silent, np.bool_),
    )


def _plain(value: Any) -> Any:
    """A field's value in a type that HDF5 takes: an array, or a string or number."""
    if isinstance(value, bytes):
        return value.decode()
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        return str(array.item()) if array.size == 1 else value
    # HDF5 does not compress scalars, and the writer asks it to compress every array.
    return array[()] if array.ndim == 0 else array


def _spell_convolution(node: nir.Conv1d | nir.Conv2d, arriving: np.ndarray[Any, Any]) -> None:
    geometry = convolution(node)
    node.groups = geometry.groups
    padding: Any = node.padding
    if not isinstance(padding, str):
        padding = np.array([before for before, _ in geometry.padding])
    if isinstance(node, nir.Conv1d):
        node.input_shape = int(arriving[1])
        node.stride, node.dilation = geometry.stride[0], geometry.dilation[0]
        node.padding = padding if isinstance(padding, str) else int(padding[0])
    else:
        node.input_shape = arriving[1:]
        node.stride, node.dilation = np.array(geometry.stride), np.array(geometry.dilation)
        node.padding = padding


def _identical(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _difference(network: SpikingNetwork, written: nir.NIRGraph, found: SpikingNetwork) -> str | None:
    """Where `found`, read back, is not `network`, which was `written`; None if nowhere."""
    if [tuple(edge) for edge in written.edges] != [tuple(edge) for edge in found.graph.edges]:
        return "the edges"
    if set(written.nodes) != set(found.graph.nodes):
        return "the nodes"
    for name, node in written.nodes.items():
        other = found.graph.nodes[name]
        if type(node) is not type(other):
            return f"the type of node {name!r}"
        for entry in fields(node):
            if entry.name in _DERIVED:
                continue
            if not _identical(getattr(node, entry.name), getattr(other, entry.name)):
                return f"{entry.name} of node {name!r}"
    if dict(network.shapes) != dict(found.shapes):
        return "the shapes"
    for name, spec in network.neurons.items():
        stored = _stored(spec)
        for entry in fields(stored):
            if not _identical(getattr(stored, entry.name), getattr(found.neurons[name], entry.name)):
                return f"{entry.name} of the neurons {name!r}"
    for key in ("num_timesteps", "method", "rho", "numerics", "quantisation"):
        if getattr(network, key) != getattr(found, key):
            return key
    return None


# --- reading ---------------------------------------------------------------------------------------------


def _read_graph(path: Path) -> nir.NIRGraph:
    """The graph as NIR has it, built node by node so that an error can name the node."""
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file or not isinstance(file["node"], h5py.Group):
                raise InputError(f"{path} is an HDF5 file, but holds no NIR graph.")
            content = nir.serialization.hdf2dict(file["node"])
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no NIR file: it cannot be read as HDF5 ({error}).") from error
    kind = content.get("type")
    if kind != "NIRGraph" or not isinstance(content.get("nodes"), dict) or "edges" not in content:
        raise NetworkError(f"{path} holds a {kind or 'node without a type'}, and not a NIRGraph with nodes and edges.")
    try:
        edges = [(_text(source), _text(target)) for source, target in content["edges"]]
    except (TypeError, ValueError) as error:
        raise NetworkError(f"The edges of the graph in {path} are not pairs of node names.") from error
    nodes = {name: _node(name, entry) for name, entry in content["nodes"].items()}
    metadata = content.get("metadata")
    return nir.NIRGraph(
        nodes=nodes, edges=edges, metadata=metadata if isinstance(metadata, dict) else {}, type_check=False
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


_RUNNABLE = (
    "Input",
    "Output",
    "IF",
    "Conv1d",
    "Conv2d",
    "Affine",
    "Linear",
    "Scale",
    "SumPool2d",
    "AvgPool2d",
    "Flatten",
)


def _node(name: str, entry: Any) -> nir.NIRNode:
    kind = entry.get("type") if isinstance(entry, dict) else None
    if kind == "NIRGraph":
        raise NetworkError(f"Node {name!r} is a graph inside the graph. Only flat graphs can be run: flatten it first.")
    if kind not in _RUNNABLE:
        raise NetworkError(
            f"Node {name!r} is of type {kind}, which cannot be run as an integrate-and-fire network. "
            f"Known are {', '.join(_RUNNABLE)}."
        )
    try:
        return nir.dict2NIRNode(entry)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"Node {name!r} ({kind}) cannot be read: {error}") from error
