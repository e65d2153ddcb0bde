"""Writes networks as NIR files, and reads each back before it counts as written."""

from __future__ import annotations

import copy
import io
import os
from dataclasses import fields, replace
from typing import Any

import h5py
import nir
import numpy as np

from cos_export.atomic_file import atomic_write
from cos_export.errors import CosExportError, InputError, NetworkError
from cos_export.freed_memory import give_back_memory
from cos_export.network import NeuronSpec, SpikingNetwork, check_network
from cos_export.network.graph import convolution, pooling
from cos_export.nir_file.graph_metadata import GRAPH_KEYS, graph_metadata
from cos_export.nir_file.importing import import_graph
from cos_export.nir_file.metadata_values import others
from cos_export.nir_file.neuron_metadata import NODE_KEYS, neuron_metadata, window_metadata
from cos_export.nir_file.reader import graph_of
from cos_export.nir_file.type_check import refused_by_nir
from cos_export.reading.hdf5_process import read_own

__all__ = ["write_nir"]

_DERIVED = frozenset({"input_type", "output_type", "metadata"})


def write_nir(network: SpikingNetwork, path: str | os.PathLike[str], *, strip_v_reset: bool = False) -> dict[str, str]:
    """Writes a network as a NIR file that any NIR reader can load.

    What NIR has no field for goes into metadata (see `nir_metadata`). The file is read again and compared
    with the network bit for bit before it is moved into place, so a file at `path` is a good one.
    The network and its graph stay as they are.

    Args:
        network: What to write.
        path: The file; one that is there is replaced.
        strip_v_reset: Leave out the `v_reset` fields, on which readers of nir 1.0.4 and older fail.

    Returns:
        By name, the nodes that the type check of the `nir` library refuses, and what it says: convolutions with
        groups or kernels that are not square. `nir.read(path, type_check=False)` and `read_nir` read the file.

    Raises:
        NetworkError: A node's name or field cannot be kept in a file, or the file did not read back.
        InputError: The file cannot be written, or `strip_v_reset` would change the network.
    """
    check_network(network)
    if strip_v_reset:
        _check_resets_to_zero(network)
    graph = _portable(network)
    with atomic_write(path) as draft:
        try:
            # In memory: libhdf5 crashes the process where it cannot write, as on a full disk.
            content = io.BytesIO()
            nir.write(content, graph)
            if strip_v_reset:
                _strip_v_reset(content)
        except (TypeError, ValueError) as error:
            raise NetworkError(f"The network cannot be written as NIR: {error}") from error
        draft.write_bytes(content.getbuffer())
        del content  # As large as the network, which is read back next.
        try:
            actual = import_graph(graph_of(read_own(draft, "node"), draft)).network
        except CosExportError as error:
            raise NetworkError(f"The NIR file that was written does not read back: {error}") from error
        difference = _difference(network, graph, actual)
        if difference:
            raise NetworkError(f"The NIR file that was written differs from the network: {difference}.")
        del actual
        give_back_memory(draft.stat().st_size)
    return refused_by_nir(graph)


def _check_resets_to_zero(network: SpikingNetwork) -> None:
    for name, spec in network.neurons.items():
        if spec.reset == "value" and np.any(spec.v_reset):
            raise InputError(f"Node {name!r} is reset to a value other than 0, so its v_reset cannot be stripped.")


def _strip_v_reset(content: io.BytesIO) -> None:
    with h5py.File(content, "r+") as file:
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
            metadata=metadata | neuron_metadata(spec) | window_metadata(network)[name],
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


_PART = 2**24
"""Bytes that are compared at once."""


def _identical(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind not in "biuf":
        return a.tobytes() == b.tobytes()
    # Bytes, for nan is not itself; in parts, for the weights of one layer may be half a gibibyte.
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return all(np.array_equal(first[i : i + _PART], second[i : i + _PART]) for i in range(0, first.size, _PART))


def _difference(network: SpikingNetwork, written: nir.NIRGraph, actual: SpikingNetwork) -> str | None:
    """Where `actual`, read back, is not `network`, which was `written`; None if nowhere."""
    if [tuple(edge) for edge in written.edges] != [tuple(edge) for edge in actual.graph.edges]:
        return "the edges"
    if set(written.nodes) != set(actual.graph.nodes):
        return "the nodes"
    for name, node in written.nodes.items():
        other = actual.graph.nodes[name]
        if type(node) is not type(other):
            return f"the type of node {name!r}"
        for entry in fields(node):
            if entry.name in _DERIVED:
                continue
            if not _identical(getattr(node, entry.name), getattr(other, entry.name)):
                return f"{entry.name} of node {name!r}"
    if dict(network.shapes) != dict(actual.shapes):
        return "the shapes"
    for name, spec in network.neurons.items():
        stored = _stored(spec)
        for entry in fields(stored):
            if not _identical(getattr(stored, entry.name), getattr(actual.neurons[name], entry.name)):
                return f"{entry.name} of the neurons {name!r}"
    kept = ("num_timesteps", "method", "rho", "calibration", "calibrated_timesteps", "quantisation")
    for key in (
        *kept,
        "schedule",
        "input_steps",
        "input_encoding",
        "normalisation",
        "class_names",
        "left_out",
        "readout_shape",
    ):
        if getattr(network, key) != getattr(actual, key):
            return key
    return None
