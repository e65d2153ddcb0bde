"""ONNX graphs with a loop that never ends, or constants that take hours, with the inputs and outputs of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["make_endless", "make_slow_to_open"]


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


def make_slow_to_open(path: Path) -> None:
    """Adds a constant to the graph's logits, 0, that ONNX Runtime would work out for many minutes as it opens it."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["first_logits" if name == "logits" else name for name in node.output]
        node.input[:] = ["first_logits" if name == "logits" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([500, 500]), "many"))
    graph.node.append(helper.make_node("ConstantOfShape", ["many"], ["product_0"]))
    count = 20_000
    for i in range(count):
        graph.node.append(helper.make_node("MatMul", [f"product_{i}"] * 2, [f"product_{i + 1}"]))
    graph.node.append(helper.make_node("ReduceSum", [f"product_{count}"], ["nothing"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["first_logits", "nothing"], ["logits"]))
    onnx.save(model, path)
