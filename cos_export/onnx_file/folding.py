"""Takes a layer's potentials and threshold into the synapses before it, where that changes nothing but rounding.

A layer of the layer-wise schedule costs passes over its memory: one to add v_init, one to divide by theta. Where both
are the same over each channel they can be part of the synapse, in the graph itself, so that `v_init/<layer>` and
`threshold/<layer>` stay what says them, and a runtime computes the rest once when it loads the file:

    weight / theta        (bias + v_init) / theta        m / theta = what the synapses give
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cos_export.onnx_file.external_data import Arrays

__all__ = ["fold_neurons"]


def fold_neurons(model: onnx.ModelProto, layers: Iterable[str], arrays: Arrays) -> None:
    """Folds what can be folded, in place.

    A layer is left as it is if its threshold is not one number, its potentials are not the same over each channel, or
    what feeds it feeds something else, too.

    Args:
        model: Of a layer-wise network, as `build_model` makes it.
        layers: Its layers of neurons.
        arrays: Its initializers by name, wherever it keeps them.
    """
    folding = _Folding(model, arrays)
    for name in layers:
        folding.fold(name)
    folding.finish()


class _Folding:
    def __init__(self, model: onnx.ModelProto, arrays: Arrays) -> None:
        self._graph = model.graph
        self._arrays = arrays
        self._makers = {node.output[0]: node for node in self._graph.node}
        self._readers = Counter(value for node in self._graph.node for value in node.input)
        self._constants: list[onnx.NodeProto] = []
        self._gone: dict[str, str] = {}

    def fold(self, layer: str) -> None:
        charge, ratio = self._makers[f"{layer}/charge"], self._makers.get(f"{layer}/ratio")
        current, start = charge.input
        threshold = f"threshold/{layer}"
        leaves = self._leaves(current)
        biased = next((node for node in leaves or () if len(node.input) == 3), None)
        if leaves is None or biased is None or not self._uniform(start) or self._array(threshold).ndim:
            return
        rows = self._constant("Flatten", [start], f"{layer}/rows", axis=2)
        channels = self._constant("Gather", [rows, self._first()], f"{layer}/channels", axis=1)
        biased.input[2] = self._constant("Add", [biased.input[2], channels], f"{layer}/bias")
        if ratio is not None:
            for number, node in enumerate(leaves):
                for place in range(1, len(node.input)):
                    scaled = f"{layer}/scaled{number}_{place}"
                    node.input[place] = self._constant("Div", [node.input[place], threshold], scaled)
        for folded in (charge, *([] if ratio is None else [ratio])):
            self._gone[folded.output[0]] = current

    def finish(self) -> None:
        """Writes the graph anew: what is computed of constants first, and without what was folded away."""
        kept = [node for node in self._graph.node if node.output[0] not in self._gone]
        for node in kept:
            for place, value in enumerate(node.input):
                node.input[place] = self._gone.get(value, value)
        values = [entry for entry in self._graph.value_info if entry.name not in self._gone]
        starts = [node for node in kept if node.name.endswith("/start")]
        ordered = [*starts, *self._constants, *(node for node in kept if node not in starts)]
        for field, entries in ((self._graph.node, ordered), (self._graph.value_info, values)):
            copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
            del field[:]
            field.extend(copies)

    def _leaves(self, value: str) -> list[onnx.NodeProto] | None:
        """The synapses whose sum is `value`, or None if one of them, or of the sums, is read elsewhere, too."""
        node = self._makers.get(value)
        if node is None or self._readers[value] != 1:
            return None
        if node.op_type == "Add":
            parts = [self._leaves(part) for part in node.input]
            return None if any(part is None for part in parts) else [leaf for part in parts for leaf in part or ()]
        known = node.op_type in ("Conv", "Gemm", "Mul") and all(entry in self._arrays for entry in node.input[1:])
        return [node] if known else None

    def _uniform(self, start: str) -> bool:
        rows = self._value(start)[0]
        rows = rows.reshape(len(rows), -1)
        return bool((rows == rows[:, :1]).all())

    def _value(self, start: str) -> NDArray[np.float32]:
        if start in self._arrays:
            return self._array(start)
        first, second = (self._array(part) for part in self._makers[start].input)
        return np.asarray(first + second)

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._arrays[name])

    def _first(self) -> str:
        """The index 0, once in the graph."""
        name = "folding/first"
        if not any(entry.name == name for entry in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), name))
        return name

    def _constant(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._constants.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name
