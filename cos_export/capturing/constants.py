"""What a forward computes of its own weights alone, which is done once, at the capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from cos_export.capturing.aliasing import draws, mutates, written
from cos_export.capturing.findings import Unsupported

__all__ = ["Constants"]


class Constants:
    """Tensors that do not depend on the input, by node.

    Args:
        held: Those of the module: parameters, buffers and others.
    """

    def __init__(self, held: Mapping[fx.Node, Tensor]) -> None:
        self._values = dict(held)
        self._memory = {tensor.untyped_storage().data_ptr() for tensor in held.values()}

    def get(self, node: fx.Node, default: Any) -> Any:
        """The tensor of a node, or `default` if it is not known."""
        return self._values.get(node, default)

    def compute(self, node: fx.Node) -> None:
        """Computes a node that reads no input, such as a weight that is normalised in forward.

        What reads something unknown stays unknown.

        Raises:
            Unsupported: It draws random numbers, or changes the module.
        """
        if draws(node):
            raise Unsupported(
                "it draws random numbers even in eval mode, and a capture would draw them once and keep them",
                "draw them in training mode only: if self.training: ...",
            )
        if mutates(node) and self._is_held(node):
            raise Unsupported(
                "forward changes a buffer of the model, so that one call depends on the one before",
                "keep no state between calls, or change it in training mode only",
            )
        if not all(argument in self._values for argument in node.all_input_nodes) or not callable(node.target):
            return
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._values.__getitem__)
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, Tensor):
            self._values[node] = result

    def _is_held(self, node: fx.Node) -> bool:
        """Whether what a node writes to is memory of the module, and not of a tensor that forward has made."""
        tensors = [self._values.get(argument) for argument in written(node)]
        return any(tensor is None or tensor.untyped_storage().data_ptr() in self._memory for tensor in tensors)
