"""The end of a module that its network leaves out: what decides nothing, and what only re-orders the readout.

A softmax and a sigmoid grow with each of their logits, so that the largest stays the largest and the sign of z is that
of sigmoid(z) - 1/2; a pixel shuffle moves numbers. Both are left to whoever wants them, and a comparison of the network
with its module applies them to the network's readout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from cos_export.capturing.findings import Finding
from cos_export.capturing.tracing import Traced, module_path, named_arguments, operation, source_line
from cos_export.network.graph import Shape

__all__ = ["Tail", "flat", "without_tail"]

_DECIDING_NOTHING = ("softmax", "_softmax", "log_softmax", "_log_softmax", "sigmoid", "log_sigmoid", "special_expit")
_MOVING = ("pixel_shuffle", "permute", "transpose", "movedim", "swapaxes", "swapdims")
_RESHAPING = ("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "select")
_NOTHING = ("clone", "contiguous", "alias", "detach", "dropout")


@dataclass(frozen=True)
class Tail:
    """The operations that were left out.

    Attributes:
        nodes: In the order in which they run.
    """

    nodes: tuple[fx.Node, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called, without those that only reshape."""
        names = (operation(node).rstrip("_") for node in self.nodes)
        return tuple(name for name in names if name in (*_DECIDING_NOTHING, *_MOVING))

    def __call__(self, readout: Tensor) -> Tensor:
        """What the module returns where its network gives `readout`: both (samples, outputs)."""
        if not self.nodes:
            return readout
        # A copy, for some of them write into what they are given.
        value = readout.clone().reshape(len(readout), *_sample_shape(self.nodes[0].args[0]))
        for node in self.nodes:
            value = _applied(node, value)
        return flat(value)

    def logits(self, outputs: Tensor) -> Tensor:
        """The module's outputs as numbers that decide as logits do: a single one by its sign.

        Args:
            outputs: (samples, outputs) of the module.
        """
        return outputs - self(torch.zeros(1, 1)) if outputs.shape[1] == 1 else outputs

    def findings(self) -> list[Finding]:
        """What became of the operations."""
        return [Finding(module_path(node), operation(node), source_line(node), _becomes(node)) for node in self.nodes]


def flat(outputs: Tensor) -> Tensor:
    """What a module returns as (samples, outputs), as a network gives it."""
    return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs.flatten(1)


def without_tail(traced: Traced) -> Traced:
    """The traced module without the operations at its end that decide nothing or only move numbers.

    The output of the graph is changed in place. What stands before the first of these stays, a flatten as well.
    """
    output = next(node for node in reversed(traced.graph.nodes) if node.op == "output")
    returned = [entry for entry in output.args[0] if isinstance(entry, fx.Node)]
    if len(returned) != 1:
        return traced
    chain: list[fx.Node] = []
    node, reader = returned[0], output
    # In a vector of classes the order says which is which.
    is_map = isinstance(held := node.meta.get("val"), Tensor) and held.ndim > 2
    while _can_be_left_out(traced, node, is_map) and list(node.users) == [reader]:
        chain.append(node)
        node, reader = node.all_input_nodes[0], node
    while chain and not _must_be_left_out(chain[-1]):
        chain.pop()
    if not chain:
        return traced
    kept: Any = chain[-1].args[0]
    output.args = (tuple(kept if entry is returned[0] else entry for entry in output.args[0]),)
    return replace(traced, left_out=tuple(reversed(chain)))


def _can_be_left_out(traced: Traced, node: fx.Node, is_map: bool) -> bool:
    """Whether it is one of these operations, on each sample alone."""
    before = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(before, fx.Node) or not _keeps_samples(traced, before):
        return False
    if not isinstance(node.meta.get("val"), Tensor):
        return False
    name = operation(node).rstrip("_")
    rank, shape = before.meta["val"].ndim, node.meta["val"].shape
    given = named_arguments(node)
    if name in ("softmax", "_softmax", "log_softmax", "_log_softmax"):
        # Over the classes, which are the channels: of another axis it would change which of them is the largest.
        return bool(given["dim"] % rank == 1)
    if name in ("sigmoid", "log_sigmoid", "special_expit"):
        return True
    if name in _MOVING:
        return is_map and str(shape[0]) == traced.batch and _first_axis_stays(given, rank)
    if name in _RESHAPING or name in _NOTHING:
        # One number for each sample, or the samples in front still.
        fixed = all(str(n).isdigit() for n in shape[1:])
        return str(shape[0]) == traced.batch and fixed and prod(_sample_shape(before)) == prod(_sample_shape(node))
    return False


def _must_be_left_out(node: fx.Node) -> bool:
    name = operation(node).rstrip("_")
    return name in (*_DECIDING_NOTHING, *_MOVING) or node.meta["val"].ndim == 1


def _keeps_samples(traced: Traced, node: fx.Node) -> bool:
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor) or value.ndim < 1:
        return False
    return str(value.shape[0]) == traced.batch and all(str(n).isdigit() for n in value.shape[1:])


def _sample_shape(node: Any) -> Shape:
    return tuple(int(n) for n in node.meta["val"].shape[1:])


def _first_axis_stays(given: dict[str, Any], rank: int) -> bool:
    if "dims" in given:
        return bool(given["dims"][0] % rank == 0)
    axes = [axis for key, value in given.items() if key not in ("self", "upscale_factor") for axis in _listed(value)]
    return all(axis % rank != 0 for axis in axes)


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _applied(node: fx.Node, value: Tensor) -> Tensor:
    name = operation(node).rstrip("_")
    if name in _RESHAPING:
        return value.reshape(len(value), *_sample_shape(node))
    if name in _NOTHING:
        return value
    result: Tensor = node.target(value, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return result


def _becomes(node: fx.Node) -> str:
    name = operation(node).rstrip("_")
    if name in _DECIDING_NOTHING:
        return "nothing: it is left out, for the decision is the same without it"
    return "nothing: it is left out, for it only gives the readout another shape or order"
