"""An ONNX graph while it grows: one node after another, each named after what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cos_export.errors import NetworkError

__all__ = ["IR_VERSION", "MAX_BYTES", "OPSET", "GraphBuilder"]

OPSET = 17
"""The first with all we use is 16 (GreaterOrEqual on any float); 17 is what most compilers accept today."""

IR_VERSION = 8
"""What belongs to opset 17; from 4 on, an initializer is overridable only if it is also a graph input."""

MAX_BYTES = 2**31 - 1
"""What one protobuf message may hold."""

Array = NDArray[np.float32] | NDArray[np.bool_] | NDArray[np.int64]
Dimension = int | str


class GraphBuilder:
    """Collects the nodes, initializers, inputs and outputs of a graph.

    A value has the name of the node that makes it. A name asked for twice gets a suffix, but for those that users
    look values up by (inputs, outputs and some initializers), which are reserved first and then taken as they are.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._values: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._used: set[str] = set()
        self._reserved: set[str] = set()
        self._bytes = 0

    def reserve(self, *names: str) -> None:
        """Keeps names for the values that ask for them with `reserved=True`."""
        self._used.update(names)
        self._reserved.update(names)

    def _name(self, preferred: str, reserved: bool) -> str:
        if reserved:
            self._reserved.remove(preferred)
            return preferred
        name, count = preferred, 2
        while name in self._used:
            name, count = f"{preferred}~{count}", count + 1
        self._used.add(name)
        return name

    def add(self, operator: str, inputs: Sequence[str], name: str, *, reserved: bool = False, **attributes: Any) -> str:
        """Appends a node with one output, and returns that value's name."""
        name = self._name(name, reserved)
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array, *, reserved: bool = False) -> str:
        """Adds an initializer that stays as it is."""
        name = self._name(name, reserved)
        self._bytes += value.nbytes
        if self._bytes > MAX_BYTES:
            raise NetworkError(
                f"The network's arrays take more than {MAX_BYTES / 2**30:.1f} GiB, the most that one ONNX file holds. "
                "Files with external data are not supported."
            )
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def overridable(self, name: str, value: Array) -> str:
        """Adds an initializer (1, ...) that a run may replace by an array (batch, ...), by a reserved name."""
        # A dimension of its own: runtimes share buffers between values of equal symbols, and this one may be 1.
        shape = (f"{name}/batch", *value.shape[1:])
        name = self.constant(name, value, reserved=True)
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def held(self, name: str, value: Array, *, overridable: bool) -> str:
        """Adds an initializer by a reserved name, (1, ...), overridable only where a run will override it.

        Runtimes warn of initializers that are inputs, and compilers refuse them.
        """
        return self.overridable(name, value) if overridable else self.constant(name, value, reserved=True)

    def declare(self, value: str, shape: Sequence[Dimension]) -> str:
        """States the shape of a float32 value that a runtime could not infer, and returns its name."""
        self._values.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
        return value

    def input(self, name: str, shape: Sequence[Dimension]) -> str:
        """Declares an input of float32, by a reserved name."""
        name = self._name(name, True)
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, kind: int, shape: Sequence[Dimension]) -> None:
        """Declares a value that a node makes as an output."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def stack(self, values: Sequence[str], name: str) -> str:
        """Joins one value (batch, ...) per step into a reserved name, (steps, batch, ...)."""
        first = self.constant(f"{name}/axis", np.array([0], np.int64))
        steps = [self.add("Unsqueeze", [value, first], f"{value}/{name}") for value in values]
        return self.add("Concat", steps, name, reserved=True, axis=0)

    def model(self, name: str, producer: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model.

        Raises:
            NetworkError: It is larger than one file can be.
        """
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, self._initializers, value_info=self._values
        )
        model = helper.make_model(
            graph,
            producer_name=producer.split()[0],
            producer_version=producer.partition(" ")[2],
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        if model.ByteSize() > MAX_BYTES:
            raise NetworkError(f"The ONNX graph takes more than {MAX_BYTES / 2**30:.1f} GiB: unroll fewer steps.")
        return model
