"""A model with fewer outputs, or with some of its values as inputs, and only the nodes that it then needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from google.protobuf.message import Message
from onnx import helper

__all__ = ["LOGITS", "with_states_given", "without_spikes"]

LOGITS = "logits"

_STATES = ("v_init", "silent")


def without_spikes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with `logits` as its only output, and only the nodes that `logits` depends on.

    A runtime computes every output that a graph declares, asked for or not, so collecting the spikes costs
    time and memory as long as it is in the graph. Inputs and initializers stay, but for unused ones.

    Args:
        model: As `build_model` makes it. It is not changed.
    """
    return _needed(model, (LOGITS,), {})


def with_states_given(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the states of each sample as inputs, in place of what it computes them from.

    They are `v_init/<layer>` or `silent/<layer>`, outputs of a graph that pre-simulates; of layers whose silent neurons
    it finds the initial potentials as well. A graph that does not pre-simulate stays as it is, and with it one of
    before, whose states are inputs that a run may override. `onnx.utils.Extractor` does as much with ONNX alone.

    Args:
        model: As `build_model` makes it. It is not changed.
    """
    arrays = {entry.name: entry for entry in model.graph.initializer}
    given: dict[str, onnx.ValueInfoProto] = {}
    for entry in model.graph.output:
        kind, _, layer = entry.name.partition("/")
        if kind not in _STATES:
            continue
        given[entry.name] = entry
        start = arrays.get(f"v_init/{layer}")
        if kind == "silent" and start is not None:
            shape = ("batch", *start.dims[1:])
            given[start.name] = helper.make_tensor_value_info(start.name, start.data_type, shape)
    return _needed(model, [entry.name for entry in model.graph.output if entry.name not in given], given)


def _needed(
    model: onnx.ModelProto, outputs: Collection[str], given: Mapping[str, onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """What some outputs depend on, with some values given as inputs."""
    makers = {value: node for node in model.graph.node for value in node.output if value not in given}
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            if value in makers:
                waiting.extend(makers[value].input)
    graph = model.graph
    kept = {
        "initializer": [entry for entry in graph.initializer if entry.name in needed and entry.name not in given],
        "input": [entry for entry in graph.input if entry.name in needed],
        "output": [entry for entry in graph.output if entry.name in outputs],
        "node": [node for node in graph.node if any(value in makers and value in needed for value in node.output)],
    }
    # Arrays are as large as the network, and are copied once.
    result = onnx.ModelProto()
    _copy(model, result, leaving_out=("graph",))
    _copy(graph, result.graph, leaving_out=kept)
    for field, entries in kept.items():
        getattr(result.graph, field).extend(entries)
    result.graph.input.extend(given[name] for name in given if name in needed)
    return result


def _copy(source: Message, target: Message, *, leaving_out: Collection[str]) -> None:
    """Takes over the fields of a message that are set, but for some."""
    for field, value in source.ListFields():
        if field.name in leaving_out:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)
