"""Reads NIR files: ours whole and bit for bit, and those of other tools in NIR's own meaning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import h5py
import nir

from cos_export.errors import InputError, NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import REFUSED, known_types
from cos_export.nir_file.importing import import_graph

__all__ = ["read_nir"]


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


def _node(name: str, entry: Any) -> nir.NIRNode:
    kind = str(entry.get("type")) if isinstance(entry, dict) else "nothing"
    if kind not in known_types():
        why = f" ({REFUSED[kind]})" if kind in REFUSED else ""
        raise NetworkError(
            f"Node {name!r} is of type {kind}, which cannot be run as an integrate-and-fire network{why}. "
            f"Known are {', '.join(known_types())}."
        )
    try:
        return nir.dict2NIRNode(entry)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"Node {name!r} ({kind}) cannot be read: {error}") from error
