"""An ONNX graph while it grows: one node after another, each named after what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cos_export.bounds import LEAST_OPSET, MOST_OPSET
from cos_export.errors import NetworkError
from cos_export.onnx_file.external_data import external_tensors
from cos_export.whole_number import whole_number

__all__ = ["MAX_BYTES", "OPSET", "GraphBuilder"]

OPSET = LEAST_OPSET
"""What is written unless another is asked for: the one that most runtimes and converters read."""

MAX_BYTES = 2**31 - 1
"""What one protobuf message may hold."""

Array = NDArray[np.float32] | NDArray[np.bool_] | NDArray[np.integer[Any]]
Dimension = int | str


class GraphBuilder:
    """Collects the nodes, initializers, inputs and outputs of a graph.

    A value has the name of the node that makes it. A name asked for twice gets a suffix, but for those that users
    look values up by (inputs, outputs and some initializers), which are reserved first and then taken as they are.

    Args:
        opset: The version of ONNX's operators that is written.
        integers: Whether the network is one of integers, whose weights are stored in 8 bits.

    Raises:
        InputError: `opset` is not one that can be written.
    """

    def __init__(self, opset: int = OPSET, *, integers: bool = False) -> None:
        self.opset = whole_number("The opset", opset, LEAST_OPSET, MOST_OPSET)
        self.arrays: dict[str, NDArray[Any]] = {}
        self._integers = integers
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._values: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._used: set[str] = set()
        self._reserved: set[str] = set()

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
        self.arrays[name] = np.ascontiguousarray(value).reshape(value.shape)
        return name

    def weights(self, name: str, value: NDArray[np.float32]) -> str:
        """Adds weights: an initializer, which a network of integers stores as int8, with a Cast to float32 behind it.

        Every runtime folds a Cast of a constant when it loads the file. DequantizeLinear says the same, but OpenVINO
        and MNN then compute other sums, and ONNX Runtime leaves it in each run.
        """
        if not self._integers or value.size == 0 or value.min() < -128 or value.max() > 127:
            return self.constant(name, value)
        small = self.constant(name, value.astype(np.int8))
        return self.add("Cast", [small], f"{small}/float", to=TensorProto.FLOAT)

    def declare(self, value: str, shape: Sequence[Dimension]) -> str:
        """States the shape of a float32 value that a runtime could not infer, and returns its name."""
        self._values.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
        return value

    def input(self, name: str, shape: Sequence[Dimension], about: str, kind: int = TensorProto.FLOAT) -> str:
        """Declares an input by a reserved name, with a sentence about it."""
        name = self._name(name, True)
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape, about))
        return name

    def output(self, name: str, kind: int, shape: Sequence[Dimension], about: str) -> None:
        """Declares a value that a node makes as an output, with a sentence about it."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape, about))

    def stack(self, values: Sequence[str], name: str) -> str:
        """Joins one value (batch, ...) per step into a reserved name, (steps, batch, ...)."""
        first = self.constant(f"{name}/axis", np.array([0], np.int64))
        steps = [self.add("Unsqueeze", [value, first], f"{value}/{name}") for value in values]
        return self.add("Concat", steps, name, reserved=True, axis=0)

    @property
    def array_bytes(self) -> int:
        """What the initializers take."""
        return sum(value.nbytes for value in self.arrays.values())

    def model(
        self, name: str, producer: str, metadata: Mapping[str, str], about: str, *, beside: str | None = None
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
            name: Of the graph.
            producer: Name and version of who made it.
            metadata: By key.
            about: What the graph does, in sentences.
            beside: The name of the file for its arrays (`cos_export.onnx_file.external_data`); by default the model
                holds them itself.

        Raises:
            NetworkError: It is larger than one file can be.
        """
        if beside is None and self.array_bytes > MAX_BYTES:
            raise NetworkError(
                f"The network's arrays take more than {MAX_BYTES / 2**30:.1f} GiB, the most that one ONNX model holds "
                "in memory. Write it with cos_export.write_onnx, which puts them into a file beside it."
            )
        outside = {} if beside is None else external_tensors(self.arrays, beside)
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, [], about, value_info=self._values)
        versions = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            producer_name=producer.split()[0],
            producer_version=producer.partition(" ")[2],
            doc_string=about,
            opset_imports=versions,
            ir_version=helper.find_min_ir_version_for(versions),
        )
        helper.set_model_props(model, dict(metadata))
        # Last, for each message that takes another one in copies its arrays.
        for key, value in self.arrays.items():
            initializer = model.graph.initializer.add()
            initializer.CopyFrom(outside[key] if key in outside else numpy_helper.from_array(value, key))
        if model.ByteSize() > MAX_BYTES:
            raise NetworkError(f"The ONNX graph takes more than {MAX_BYTES / 2**30:.1f} GiB: unroll fewer steps.")
        return model
