"""A model without what only its spike outputs need."""

from __future__ import annotations

import onnx

__all__ = ["LOGITS", "without_spikes"]

LOGITS = "logits"


def without_spikes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with `logits` as its only output, and only the nodes that `logits` depends on.

    A runtime computes every output that a graph declares, asked for or not, so collecting the spikes costs
    time and memory as long as it is in the graph. Inputs and initializers stay, but for unused ones.

    Args:
        model: As `build_model` makes it. It is not changed.
    """
    makers = {value: node for node in model.graph.node for value in node.output}
    needed: set[str] = set()
    waiting = [LOGITS]
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            if value in makers:
                waiting.extend(makers[value].input)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for entries in (result.graph.initializer, result.graph.input, result.graph.output):
        kept = [entry for entry in entries if entry.name in needed]
        del entries[:]
        entries.extend(kept)
    nodes = [node for node in result.graph.node if needed.intersection(node.output)]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result
