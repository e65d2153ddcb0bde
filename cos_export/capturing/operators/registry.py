"""The registry of ATen operators: one small function for each family says what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from cos_export.capturing.builder import Builder
from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray
from cos_export.capturing.options import Options
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__ = ["OPERATORS", "Call", "Converted", "Operator", "operator"]


@dataclass(frozen=True)
class Converted:
    """What an operation became.

    Attributes:
        value: Its result, or its results where it has several.
        becomes: The same in words.
        synapses: The nodes whose weights a following batch norm may be folded into, if nothing else reads their sum.
        warning: What to know although it converts.
    """

    value: Value | tuple[Value, ...]
    becomes: str
    synapses: tuple[str, ...] = ()
    warning: str | None = None


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        arguments: By the names of the operator's schema, defaults filled in: a `Value` for what depends on the
            input, a tensor for what does not, else what stands in the graph.
        shapes: The shape of each result without the batch axis.
        node: The call in the graph of the module.
        name: What a node made of it should be called.
        key: What the user calls it if it is a ReLU, else "".
        builder: The graph so far.
        options: What the user chose.
        only_reader_of: The synapses whose sum this call is the only one to read, or none.
    """

    arguments: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    node: fx.Node
    name: str
    key: str
    builder: Builder
    options: Options
    only_reader_of: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The shape of the first result without the batch axis."""
        return self.shapes[0]

    def signal(self, key: str, *, split: bool = False, permuted: bool = False) -> Value:
        """An argument that depends on the input.

        Args:
            key: Which.
            split: Whether its channels may be spread over several axes.
            permuted: Whether they may stand behind other axes.

        Raises:
            Unsupported: It does not, or its channels are.
        """
        value = self.arguments[key]
        if not isinstance(value, Value):
            raise Unsupported(
                f"its argument {key!r} does not depend on the input", "give the layer's output there, not a constant"
            )
        if value.order is not None and not permuted:
            raise Unsupported(
                "its input has its channels behind other axes, as a permutation has left it",
                "permute back to (batch, channels, height, width) before it",
            )
        if value.split != 1 and not split:
            raise Unsupported(
                f"the channels of its input are spread over {value.split} axes, {value.shape} without the batch axis",
                "reshape back to (batch, channels, height, width) before it",
            )
        return value

    def first_signal(self, *, split: bool = False, permuted: bool = False) -> Value:
        """The first argument, which some operators call "input" and others "self".

        Raises:
            Unsupported: It does not depend on the input, or its channels are spread over several axes.
        """
        return self.signal(next(iter(self.arguments)), split=split, permuted=permuted)

    def constant(self, key: str) -> DoubleArray | None:
        """A tensor argument that does not depend on the input, in float64; None where it is left out.

        Raises:
            Unsupported: It does depend on the input.
        """
        value = self.arguments[key]
        if value is None:
            return None
        if not isinstance(value, torch.Tensor):
            raise Unsupported(f"its {key} is computed from the input", "use weights that are the same for every input")
        return np.asarray(value.detach().cpu().to(torch.float64).numpy())

    def weight(self, key: str) -> DoubleArray:
        """A `constant` that must be there.

        Raises:
            Unsupported: It is not, or depends on the input.
        """
        found = self.constant(key)
        if found is None:
            raise Unsupported(f"it has no {key}", f"give it a {key}")
        return found

    def number(self, key: str) -> float:
        """A plain number, or a tensor that does not depend on the input and has one entry.

        Raises:
            Unsupported: It is neither.
        """
        value = self.arguments[key]
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            return float(value.detach())
        raise Unsupported(
            f"its argument {key!r} is not a single number that is known beforehand",
            "use a number, or a layer with weights (Linear, Conv1d, Conv2d)",
        )

    def sizes(self, key: str, count: int) -> Shape:
        """A list of `count` integers, of which one alone stands for all."""
        value = self.arguments[key]
        listed: Sequence[int] = value if isinstance(value, list | tuple) else [value]
        return tuple(int(listed[i if len(listed) > 1 else 0]) for i in range(count))


Operator = Callable[[Call], Converted]

OPERATORS: dict[str, Operator] = {}
"""By the name of the ATen overload, such as "aten.conv2d.default"."""


def operator(*targets: str) -> Callable[[Operator], Operator]:
    """Registers a function for these overloads."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(targets, function))
        return function

    return register
