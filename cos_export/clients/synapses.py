"""What lies between neurons, as modules of PyTorch, which every client builds on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cos_export.clients.nir_graph import Array
from cos_export.errors import NetworkError

__all__ = ["SYNAPSES", "Scale", "synapse"]

Node = Mapping[str, Any]


class Scale(nn.Module):
    """y = scale * x."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, values: Tensor) -> Tensor:
        """Scales what arrives, (batch, ...)."""
        return values * self.scale


def synapse(name: str, node: Node) -> nn.Module:
    """The module of a node that does not spike; its input has a batch axis.

    Args:
        name: Of the node.
        node: Its type and fields.

    Raises:
        NetworkError: There are no such nodes, or a field is missing or not what it should be.
    """
    kind = node["type"]
    if kind not in SYNAPSES:
        raise NetworkError(f"Node {name!r} is of type {kind}; known are {', '.join(sorted(SYNAPSES))} and IF.")
    try:
        return SYNAPSES[kind](node)
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise NetworkError(f"Node {name!r} ({kind}) cannot be made a module of: {error!r}.") from error


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _whole(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in np.atleast_1d(values))


def _weighted(module: nn.Module, node: Node) -> nn.Module:
    values = {"weight": _tensor(node["weight"])}
    if "bias" in node:
        values["bias"] = _tensor(np.broadcast_to(node["bias"], (len(node["weight"]),)))
    module.load_state_dict(values)
    return module.requires_grad_(False)


def _linear(node: Node) -> nn.Module:
    outputs, inputs = np.shape(node["weight"])
    return _weighted(nn.Linear(inputs, outputs, bias="bias" in node), node)


def _convolution(kind: type[nn.Conv1d] | type[nn.Conv2d]) -> Callable[[Node], nn.Module]:
    def make(node: Node) -> nn.Module:
        outputs, inputs, *kernel = np.shape(node["weight"])
        groups, axes = int(node["groups"]), len(kernel)
        padding = node["padding"]
        # In a file one number may stand for all axes.
        stride, dilation = (_whole(np.broadcast_to(node[key], (axes,))) for key in ("stride", "dilation"))
        padded: Any = padding if isinstance(padding, str) else _whole(np.broadcast_to(padding, (axes,)))
        module: Any = kind
        return _weighted(
            module(inputs * groups, outputs, tuple(kernel), stride, padded, dilation, groups, bias="bias" in node), node
        )

    return make


def _scale(node: Node) -> nn.Module:
    return Scale(_tensor(node["scale"]))


def _pool(node: Node) -> nn.Module:
    """A pool whose divisor is 1, which sums, or the size of its window."""
    kernel, stride, padding = (_whole(np.broadcast_to(node[key], (2,))) for key in ("kernel_size", "stride", "padding"))
    divisor = 1 if node["type"] == "SumPool2d" else None
    return nn.AvgPool2d(_pair(kernel), _pair(stride), _pair(padding), divisor_override=divisor)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return first, second


def _flatten(node: Node) -> nn.Module:
    """Axes are counted without the batch in the file, and with it here."""
    start, end = (int(node[key]) for key in ("start_dim", "end_dim"))
    return nn.Flatten(start + (start >= 0), end + (end >= 0))


def _identity(node: Node) -> nn.Module:
    return nn.Identity()


SYNAPSES: Mapping[str, Callable[[Node], nn.Module]] = {
    "Affine": _linear,
    "AvgPool2d": _pool,
    "Conv1d": _convolution(nn.Conv1d),
    "Conv2d": _convolution(nn.Conv2d),
    "Flatten": _flatten,
    "Input": _identity,
    "Linear": _linear,
    "Output": _identity,
    "Scale": _scale,
    "SumPool2d": _pool,
}
"""What makes a module of a node, by the node's type."""
