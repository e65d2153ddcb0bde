"""An ONNX graph with a loop that never ends, with the inputs and outputs of another."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

__all__ = ["make_endless"]


def make_endless(path: Path) -> None:
    """Puts a loop without an end behind the graph's logits."""
    model = onnx.load(path)
    graph = model.graph
    shape = [side.dim_value or side.dim_param for side in graph.output[0].type.tensor_type.shape.dim]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["still_going_on"]),
            helper.make_node("Neg", ["value"], ["negated"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("still_going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("negated", TensorProto.FLOAT, shape),
        ],
    )
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == "logits":
                node.output[place] = "first_logits"
        for place, name in enumerate(node.input):
            if name == "logits":
                node.input[place] = "first_logits"
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph.node.append(helper.make_node("Loop", ["", "yes", "first_logits"], ["logits"], body=body))
    onnx.save(model, path)
