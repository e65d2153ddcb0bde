"""Reads NIR files: ours whole and bit for bit, and those of other tools in NIR's own meaning."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.neuron_spec import Condition, Reset
from cos_export.network.node_facts import REFUSED, known_types
from cos_export.nir_file.conventions import AssumptionNotice, Conventions, assumptions
from cos_export.nir_file.importing import Imported, import_graph
from cos_export.reading.hdf5_process import Tree, read_tree

__all__ = ["graph_of", "node_of", "open_nir", "read_nir"]

_DECLARED = {"Conv1d": ("input_shape",), "Conv2d": ("input_shape",), "Flatten": ("input_type",)}
"""By type, what a file says about the shape that arrives; `import_graph` compares it with the one that does."""


def read_nir(
    path: str | os.PathLike[str],
    *,
    reset: Reset | None = None,
    condition: Condition | None = None,
    dt: float | None = None,
) -> SpikingNetwork:
    """Reads a network of integrate-and-fire neurons from a NIR file, whichever tool has written it.

    What the file does not say has NIR's own meaning: a neuron fires strictly above its threshold, is
    reset to `v_reset` and starts at 0. For such files `reset` and `condition` say otherwise; what neither says is
    an `AssumptionNotice`, a warning. What the file says is never overridden.

    A NIR neuron charges by r * dt * I. Where r * dt is 1 (to float32's rounding) nothing changes; elsewhere
    the threshold, v_reset and the initial potential are divided by r * dt, which gives the same spikes with
    r = 1, up to the rounding of that division.

    Args:
        path: The file.
        reset: How a neuron is reset, in a file that does not say.
        condition: When a neuron fires, in a file that does not say.
        dt: Length of a step in the unit of r, in a file that does not say; 1 if neither says, unless r is so far from
            1 that it must have been forgotten.

    Returns:
        The network. Nodes are listed by name, as the file has them.

    Raises:
        InputError: There is no such file, it is not an HDF5 file of numbers and text that another process reads whole
            within its limits (`cos_export.reading.hdf5_content`), or an argument contradicts it.
        NetworkError: What it holds is not a feed-forward network of integrate-and-fire neurons.
    """
    opened = open_nir(path, Conventions(reset, condition, dt))
    if opened.assumed:
        warnings.warn(assumptions(path, opened.assumed), AssumptionNotice, stacklevel=2)
    return opened.network


def open_nir(path: str | os.PathLike[str], conventions: Conventions | None = None) -> Imported:
    """`read_nir`, with what was assumed in place of a warning; errors are the same."""
    return import_graph(graph_of(read_tree(Path(path), "node"), Path(path)), conventions)


def graph_of(content: Tree, path: Path) -> nir.NIRGraph:
    """The graph as NIR has it, built node by node so that an error can name the node.

    Args:
        content: What the file's group "node" holds.
        path: The file.

    Raises:
        NetworkError: It is not a graph of nodes that can be run.
    """
    kind = content.get("type")
    if (
        not isinstance(kind, str)
        or kind != "NIRGraph"
        or not isinstance(content.get("nodes"), dict)
        or "edges" not in content
    ):
        what = kind if isinstance(kind, str) else "node without a type"
        raise NetworkError(f"{path} holds a {what}, and not a NIRGraph with nodes and edges.")
    edges, metadata = content["edges"], content.get("metadata")
    if np.size(edges) == 0:
        edges = np.empty((0, 2), object)
    if not isinstance(edges, np.ndarray) or edges.dtype.kind != "O" or edges.ndim != 2 or edges.shape[1] != 2:
        raise NetworkError(f"The edges of the graph in {path} are not pairs of node names.")
    return nir.NIRGraph(
        nodes={name: node_of(name, entry) for name, entry in content["nodes"].items()},
        edges=[(str(source), str(target)) for source, target in edges],
        metadata=metadata if isinstance(metadata, dict) else {},
        type_check=False,
    )


def node_of(name: str, entry: Any) -> nir.NIRNode:
    """A node as NIR has it, from what the file holds of it.

    Raises:
        NetworkError: It is of a type that cannot be run, or its fields are not those of its type.
    """
    kind = str(entry.get("type")) if isinstance(entry, dict) else "nothing"
    if kind not in known_types():
        why = f" ({REFUSED[kind]})" if kind in REFUSED else ""
        raise NetworkError(
            f"Node {name!r} is of type {kind}, which cannot be run as an integrate-and-fire network{why}. "
            f"Known are {', '.join(known_types())}."
        )
    stored = {"metadata": {}, **entry}
    for key, value in stored.items():
        if isinstance(value, dict) != (key == "metadata"):
            what = "a group" if isinstance(value, dict) else "not a group"
            raise NetworkError(f"Node {name!r} ({kind}) cannot be read: its {key} is {what}.")
    # NIR's constructors compute with the shape that arrives, and nobody has checked the fields yet.
    declared = {key: stored.pop(key, None) for key in _DECLARED.get(kind, ())}
    try:
        node = nir.dict2NIRNode(stored | dict.fromkeys(declared))
    except (ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"Node {name!r} ({kind}) cannot be read: {error}") from error
    if "input_shape" in declared:
        node.input_shape = declared["input_shape"]
    if "input_type" in declared:
        node.input_type = {"input": declared["input_type"]}
    return node
