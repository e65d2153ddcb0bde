"""From a NIR graph, whichever tool has made it, to a spiking network."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import nir
import numpy as np

from cos_export.errors import InputError, NetworkError
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.network.batch_axis import batch_axis_hint
from cos_export.network.fields import numbers, whole_numbers
from cos_export.network.graph import Shape, output_shape
from cos_export.network.neuron_spec import Condition, Reset
from cos_export.network.order import predecessors, topological_order
from cos_export.nir_file.conventions import ROUNDING, Conventions, assumed_lines, rescaled
from cos_export.nir_file.graph_metadata import GRAPH_KEYS, GraphFacts, read_graph_metadata
from cos_export.nir_file.metadata_values import others
from cos_export.nir_file.neuron_metadata import (
    ALWAYS_WRITTEN,
    NODE_KEYS,
    NeuronFacts,
    read_neuron_metadata,
    window_metadata,
)
from cos_export.quantisation.integrality import check_integers

__all__ = ["Imported", "import_graph"]

_Chosen = TypeVar("_Chosen")

_LARGEST_SPREAD = 2**24
"""Neurons of a file whose parameters it has not one by one: what it does not hold is not made without end."""


@dataclass(frozen=True)
class Imported:
    """A network that was read.

    Attributes:
        network: The network, with r = 1 and parameters of full shape. What our metadata said is in its fields and
            no longer in the graph's metadata; other metadata is kept.
        assumed: In words, what neither the file nor the user says, and what is assumed in its place.
    """

    network: SpikingNetwork
    assumed: tuple[str, ...] = ()


def import_graph(graph: nir.NIRGraph, conventions: Conventions | None = None) -> Imported:
    """Makes a network of a NIR graph; the rules are those of `read_nir`.

    Args:
        graph: The graph, which is not changed. Its `nir.IF` may have parameters of fewer elements than
            neurons: one number for all of a layer, or an axis of length 1 for all along it.
        conventions: What the user says, where the graph does not.

    Raises:
        InputError: What the user says contradicts the graph.
        NetworkError: The graph is not a feed-forward network of integrate-and-fire neurons.
    """
    asked = conventions or Conventions()
    facts = read_graph_metadata(graph.metadata)
    dt = _choose("dt", asked.dt, facts.dt, 1.0, "The graph")
    _check_ends(graph)
    nodes = dict.fromkeys(graph.nodes)
    neurons: dict[str, NeuronSpec] = {}
    said: dict[str, NeuronFacts] = {}
    gains: dict[str, float] = {}
    spread = 0
    shapes: dict[str, Shape] = {}
    feeds = predecessors(graph)
    for name in topological_order(graph):
        node = graph.nodes[name]
        if not feeds[name] and not isinstance(node, nir.Input):
            raise NetworkError(f"Node {name!r} ({type(node).__name__}) has no edge into it and is not an Input.")
        shape = shapes[feeds[name][0]] if feeds[name] else ()
        try:
            if isinstance(node, nir.IF):
                if np.size(node.v_threshold) < math.prod(shape):
                    spread += math.prod(shape)
                if spread > _LARGEST_SPREAD:
                    raise NetworkError(f"fewer parameters than neurons are accepted for {_LARGEST_SPREAD:,} of them.")
                said[name] = read_neuron_metadata(node.metadata)
                _check_metadata_is_whole(node, facts)
                gain = _spread("r", node.r, shape) * dt
                if np.any(np.abs(gain - 1.0) > ROUNDING):
                    gains[name] = float(gain.flat[np.argmax(np.abs(gain - 1.0))])
                dt_known = asked.dt is not None or facts.dt is not None
                spec = neurons[name] = _neurons(node, shape, said[name], asked, gain, dt_known=dt_known)
                nodes[name], shapes[name] = _plain_if(node, spec), shape
            else:
                shapes[name] = output_shape(node, shape)
                nodes[name] = _with_types(node, shape, shapes[name])
        except (InputError, NetworkError) as error:
            raise type(error)(f"Node {name!r} ({type(node).__name__}): {error}") from None
    network = SpikingNetwork(
        graph=nir.NIRGraph(
            nodes=nodes, edges=list(graph.edges), metadata=others(graph.metadata, GRAPH_KEYS), type_check=False
        ),
        neurons=neurons,
        num_timesteps=facts.num_timesteps,
        method=facts.method,
        rho=facts.rho,
        calibration=facts.calibration,
        calibrated_timesteps=facts.calibrated_timesteps,
        quantisation=facts.quantisation,
        schedule=facts.schedule,
        input_steps=facts.input_steps,
        input_encoding=facts.input_encoding,
        normalisation=facts.normalisation,
        class_names=facts.class_names,
        left_out=facts.left_out,
        readout_shape=facts.readout_shape,
    )
    _check_windows(graph, network)
    check_integers(network)
    return Imported(network, () if facts.ours else tuple(assumed_lines(said, gains, facts.dt, asked)))


def _check_windows(graph: nir.NIRGraph, network: SpikingNetwork) -> None:
    """Refuses a layer that is said to fire at another time than its place in the graph and T give."""
    for name, expected in window_metadata(network).items():
        said = read_neuron_metadata(graph.nodes[name].metadata).window_opens
        if said is not None and said != expected.get("window_opens"):
            raise NetworkError(
                f"Node {name!r} is said to fire after step {said} (window_opens), and by its place in the graph "
                f"it does after step {expected.get('window_opens', 0)}."
            )


def _check_ends(graph: nir.NIRGraph) -> None:
    # Before shapes are worked out: without an Input there is nothing to work them out from.
    for kind in (nir.Input, nir.Output):
        names = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
        if len(names) != 1:
            raise NetworkError(
                f"A network has one {kind.__name__} node; this graph has {len(names)} "
                f"({', '.join(map(repr, names)) or 'none'})."
            )


def _choose(what: str, asked: _Chosen | None, said: _Chosen | None, default: _Chosen, who: str = "it") -> _Chosen:
    if asked is not None and said is not None and asked != said:
        raise InputError(f"{who} says {what} = {said!r}, which {asked!r} contradicts. Leave {what} out.")
    return said if said is not None else asked if asked is not None else default


def _check_metadata_is_whole(node: nir.IF, facts: GraphFacts) -> None:
    """Refuses a node that says less, or more, than a graph of our schema or of another tool does."""
    missing = [key for key in ALWAYS_WRITTEN if key not in node.metadata]
    if facts.ours and missing:
        raise NetworkError(
            "the graph is of our schema, but this node lacks v_init, reset_mechanism or spike_condition. A tool that "
            "copied the graph has dropped them: use the original file."
        )
    if not facts.ours and not missing:
        raise NetworkError(
            "this node has the metadata of our schema, and the graph has lost its own, which says T, the numerics, the "
            "schedule and the normalisation. A tool that copied the graph has dropped it: use the original file."
        )


def _neurons(
    node: nir.IF,
    shape: Shape,
    said: NeuronFacts,
    asked: Conventions,
    gain: np.ndarray[Any, np.dtype[np.float64]],
    *,
    dt_known: bool,
) -> NeuronSpec:
    threshold = _spread("v_threshold", node.v_threshold, shape)
    v_reset = _spread("v_reset", node.v_reset, shape)
    v_init = np.zeros(shape) if said.v_init is None else said.v_init.astype(np.float64)
    if v_init.shape != shape:
        raise NetworkError(f"v_init has shape {v_init.shape}, and the node {shape}.")
    if said.bias is not None and np.any(np.abs(gain - 1.0) > ROUNDING):
        raise NetworkError("it has a per-step bias (v_bias), which needs r * dt = 1.")
    threshold, v_reset, v_init = rescaled(threshold, v_reset, v_init, gain, dt_known=dt_known)
    rule: Reset = _choose("reset", asked.reset, said.reset, "value")
    fires: Condition = _choose("condition", asked.condition, said.condition, ">")
    if rule == "subtract" and np.any(v_reset):
        raise NetworkError(
            "reset by subtraction was asked for, but v_reset is not 0 there, which only a reset to a value uses."
        )
    return NeuronSpec(
        threshold=_float32("v_threshold", threshold),
        v_init=_float32("v_init", v_init),
        condition=fires,
        reset=rule,
        v_reset=_float32("v_reset", v_reset) if rule == "value" else None,
        bias=said.bias,
        silent=said.silent,
        levels=said.levels,
        scale=said.scale,
    )


def _spread(field: str, value: Any, shape: Shape) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`value` for each neuron, in float64.

    One number serves all, and an axis of length 1 all along it. Fewer axes than the node has are refused:
    numpy would read a vector along the last axis, and its writer may have meant channels.
    """
    array = numbers(field, value).astype(np.float64)
    if array.size == 1:
        return np.full(shape, array.item())
    fits = array.ndim == len(shape) and all(a in (1, n) for a, n in zip(array.shape, shape, strict=True))
    if not fits:
        hint = batch_axis_hint(array.shape, len(shape)) or batch_axis_hint(shape, array.ndim if array.ndim else -1)
        raise NetworkError(f"{field} has shape {array.shape}, which does not say a value for each of {shape}.{hint}")
    return np.broadcast_to(array, shape).copy()


def _float32(field: str, array: np.ndarray[Any, np.dtype[np.float64]]) -> FloatArray:
    return numbers(f"{field} / (r dt)", array).astype(np.float32)


def _plain_if(node: nir.IF, spec: NeuronSpec) -> nir.IF:
    reset: FloatArray = np.zeros_like(spec.threshold) if spec.v_reset is None else spec.v_reset
    return nir.IF(
        r=np.ones_like(spec.threshold),
        v_threshold=spec.threshold,
        v_reset=reset,
        metadata=others(node.metadata, NODE_KEYS),
    )


def _with_types(node: nir.NIRNode, shape: Shape, made: Shape) -> nir.NIRNode:
    """A copy with NIR's types as they are, once they have been compared with what the file declares."""
    result = copy.copy(node)
    result.metadata = others(node.metadata, NODE_KEYS)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        _check_declared("input_shape", node.input_shape, shape[1:])
    elif isinstance(node, nir.Flatten):
        _check_declared("input_type", node.input_type["input"], shape)
    if not isinstance(node, nir.Input | nir.Output):
        result.input_type, result.output_type = {"input": np.array(shape)}, {"output": np.array(made)}
    return result


def _check_declared(field: str, value: Any, shape: Shape) -> None:
    if value is not None and whole_numbers(field, value, len(shape), 1) != shape:
        raise NetworkError(f"its {field} is {np.asarray(value).tolist()}, and what arrives has {shape}.")
