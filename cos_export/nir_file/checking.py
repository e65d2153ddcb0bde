"""The check of a NIR file: what each of its nodes becomes, and all that stands in the way of running it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np

from cos_export.capturing import CheckResult, Finding
from cos_export.errors import InputError, NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.nir_file.conventions import Conventions, assumptions
from cos_export.nir_file.importing import import_graph
from cos_export.nir_file.reader import graph_of, node_of
from cos_export.quantisation.ranges import check_ranges
from cos_export.reading.hdf5_process import read_tree

__all__ = ["check_nir"]

_FIX = "take this node out of the file, or train the network with integrate-and-fire neurons"


def check_nir(path: str | os.PathLike[str], conventions: Conventions | None = None) -> CheckResult:
    """A finding for each node of a NIR file, by the code that `read_nir` runs.

    Every node that cannot be run is a finding that blocks. Where all of them can, so is the first thing that is wrong
    with the graph as a whole: its wiring, its shapes, its metadata, and of integers whether their sums fit.

    Args:
        path: The file.
        conventions: What the user says, where the file does not.

    Raises:
        InputError: There is no such file, or it is not an HDF5 file that can be read.
        NetworkError: What it holds is not a graph.
    """
    content = read_tree(Path(path), "node")
    entries = content.get("nodes")
    findings = [_node_finding(name, entry) for name, entry in entries.items()] if isinstance(entries, dict) else []
    if any(finding.blocker for finding in findings):
        return CheckResult(tuple(findings))
    graph = graph_of(content, Path(path))
    try:
        opened = import_graph(graph, conventions)
        _check_ranges(opened.network)
    except (InputError, NetworkError) as error:
        return CheckResult((*findings, Finding("", "graph", None, "", str(error))))
    by_name = {finding.module: finding for finding in findings}
    findings = [replace(by_name[name], becomes=_words(opened.network, name)) for name in opened.network.order]
    if opened.assumed:
        findings.append(Finding("", "graph", None, "a network", warning=assumptions(path, opened.assumed)))
    return CheckResult(tuple(findings))


def _check_ranges(network: SpikingNetwork) -> None:
    """Refuses a network of integers whose sums may leave the bits that hold them, within the steps of the file."""
    if network.quantisation is not None:
        check_ranges(network, network.num_timesteps or 1, per_sample=network.rho > 0)


def _node_finding(name: str, entry: Any) -> Finding:
    kind = str(entry.get("type")) if isinstance(entry, Mapping) else "nothing"
    try:
        node_of(name, entry)
    except NetworkError as error:
        return Finding(name, kind, None, "", str(error), _FIX)
    return Finding(name, kind, None, "")


def _words(network: SpikingNetwork, name: str) -> str:
    node, shape = network.graph.nodes[name], "x".join(map(str, network.shapes[name]))
    if isinstance(node, nir.IF):
        spec = network.neurons[name]
        low, high = float(np.min(spec.threshold)), float(np.max(spec.threshold))
        theta = f"{low:g}" if low == high else f"{low:g}..{high:g}"
        reset = "minus theta" if spec.reset == "subtract" else "to v_reset"
        return f"{shape} neurons, theta {theta}, fire at m {spec.condition} theta, reset {reset}"
    return f"{facts(node).kind}, {shape}"
