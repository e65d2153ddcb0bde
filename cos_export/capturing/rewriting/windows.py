"""Crops, zero paddings and strided slices: neighbouring ones as one, padding within the convolution behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from cos_export.capturing.rewriting.editing import Editing, rewritable
from cos_export.capturing.rewriting.window_operator import WINDOW
from cos_export.capturing.tracing import named_arguments

__all__ = ["rewrite_selections", "rewrite_windows"]

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default")


@dataclass(frozen=True)
class _Axis:
    """Evenly spaced places of an axis of `size` entries."""

    size: int
    first: int
    step: int
    count: int

    @property
    def whole(self) -> bool:
        return (self.first, self.step, self.count) == (0, 1, self.size)

    def inside(self, place: int) -> bool:
        return 0 <= place < self.size

    def after(self, other: _Axis) -> _Axis | None:
        """The places of these among the places of `other`, or None if zeros between the two make it more than that."""
        first, step = other.first + other.step * self.first, other.step * self.step
        for i in range(self.count):
            if self.inside(self.first + self.step * i) != other.inside(first + step * i):
                return None
        return _Axis(other.size, first, step, self.count)


def rewrite_windows(graph: fx.Graph) -> None:
    """Writes each crop, padding and slice over space as a window, in place. Slices of channels alone stay."""
    windows: dict[fx.Node, tuple[_Axis, ...]] = {}
    for node in rewritable(graph):
        rule = _RULES.get(str(node.target)) if node.op == "call_function" else None
        given = named_arguments(node)
        value = next(iter(given.values()), None)
        sizes = _sample_sizes(value)
        axes = rule(given, sizes) if rule is not None and sizes is not None else None
        if axes is None or not isinstance(value, fx.Node):
            continue
        if all(axis.whole for axis in axes):
            if str(node.target) != "aten.slice.Tensor":
                editing = Editing(node)
                editing.finish(editing.call(torch.ops.aten.alias.default, value))
            continue
        before, source = windows.get(value), value
        only_channels = all(axis.whole for axis in axes[1:])
        if before is None and only_channels and str(node.target) == "aten.slice.Tensor":
            # Channels alone are cut without a window, unless one is there.
            continue
        merged = _merged(axes, before) if before is not None and len(value.users) == 1 else None
        if merged is not None:
            axes, source = merged, value.all_input_nodes[0]
        editing = Editing(node)
        numbers = ([axis.first for axis in axes], [axis.step for axis in axes], [axis.count for axis in axes])
        made = editing.call(WINDOW, source, *numbers)
        windows[made] = axes
        editing.finish(made)
        if merged is not None:
            del windows[value]
            graph.erase_node(value)
    for window, axes in windows.items():
        _pad_in_convolutions(window, axes)


def _merged(axes: tuple[_Axis, ...], before: tuple[_Axis, ...]) -> tuple[_Axis, ...] | None:
    """One window for two, or None."""
    merged = [axis.after(other) for axis, other in zip(axes, before, strict=True)]
    found = tuple(axis for axis in merged if axis is not None)
    return found if len(found) == len(merged) else None


def _pad_in_convolutions(node: fx.Node, axes: Sequence[_Axis]) -> None:
    """Leaves padding with as many zeros on both sides to the convolutions that read it, if these are all."""
    pads = [-axis.first for axis in axes]
    symmetric = all(a.step == 1 and a.count == a.size + 2 * p and p >= 0 for a, p in zip(axes, pads, strict=True))
    if not symmetric or pads[0] or not node.users:
        return
    readers = list(node.users)
    if any(str(r.target) not in _CONVOLUTIONS or r.args[0] is not node or node in r.args[1:] for r in readers):
        return
    for reader in readers:
        given = named_arguments(reader)
        padding = [int(given["padding"][i if len(given["padding"]) > 1 else 0]) for i in range(len(pads) - 1)]
        given |= {"input": node.args[0], "padding": [p + q for p, q in zip(padding, pads[1:], strict=True)]}
        reader.args, reader.kwargs = tuple(given.values()), {}
    node.graph.erase_node(node)


def _sample_sizes(value: Any) -> tuple[int, ...] | None:
    """The axes of a value but the batch's, None if one is not known."""
    held = value.meta.get("val") if isinstance(value, fx.Node) else None
    if not isinstance(held, Tensor) or held.ndim < 2:
        return None
    sizes = tuple(str(n) for n in held.shape[1:])
    return tuple(map(int, sizes)) if all(n.isdigit() for n in sizes) else None


def _with(sizes: tuple[int, ...], axis: int, first: int, step: int, count: int) -> tuple[_Axis, ...] | None:
    """All axes whole but one, which is counted with the batch's; None if that is it."""
    if axis == 0 or count < 1:
        return None
    axes = [_Axis(size, 0, 1, size) for size in sizes]
    axes[axis - 1] = _Axis(sizes[axis - 1], first, step, count)
    return tuple(axes)


def _slice(given: dict[str, Any], sizes: tuple[int, ...]) -> tuple[_Axis, ...] | None:
    axis = given["dim"] % (len(sizes) + 1)
    bounds = (given["start"], given["end"], given["step"])
    if axis == 0 or not all(bound is None or isinstance(bound, int) for bound in bounds):
        return None
    places = range(*slice(*bounds).indices(sizes[axis - 1]))
    return _with(sizes, axis, places.start, places.step, len(places))


def _narrow(given: dict[str, Any], sizes: tuple[int, ...]) -> tuple[_Axis, ...] | None:
    axis = given["dim"] % (len(sizes) + 1)
    if axis == 0 or not isinstance(given["start"], int) or not isinstance(given["length"], int):
        return None
    return _with(sizes, axis, given["start"] % sizes[axis - 1], 1, given["length"])


def _pad(given: dict[str, Any], sizes: tuple[int, ...]) -> tuple[_Axis, ...] | None:
    pads, value = list(given["pad"]), given.get("value")
    if given.get("mode", "constant") != "constant" or value not in (None, 0) or len(pads) > 2 * len(sizes):
        return None
    if not all(isinstance(pad, int) for pad in pads):
        return None
    pads += [0] * (2 * len(sizes) - len(pads))
    # They come from the last axis to the first: before, after.
    sides = [(pads[2 * i], pads[2 * i + 1]) for i in reversed(range(len(sizes)))]
    axes = tuple(_Axis(size, -low, 1, size + low + high) for size, (low, high) in zip(sizes, sides, strict=True))
    return axes if all(axis.count > 0 for axis in axes) else None


_RULES: dict[str, Callable[[dict[str, Any], tuple[int, ...]], tuple[_Axis, ...] | None]] = {
    "aten.slice.Tensor": _slice,
    "aten.narrow.default": _narrow,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
}


def rewrite_selections(graph: fx.Graph) -> None:
    """Writes the choice of one place of an axis as a slice of one entry, without its axis."""
    for node in rewritable(graph):
        if node.op != "call_function" or str(node.target) != "aten.select.int":
            continue
        given = named_arguments(node)
        sizes, index = _sample_sizes(given["self"]), given["index"]
        axis = given["dim"] % (1 + len(sizes or ()))
        if sizes is None or axis == 0 or not isinstance(index, int):
            continue
        editing, value = Editing(node), given["self"]
        if sizes[axis - 1] > 1:
            start = index % sizes[axis - 1]
            value = editing.call(torch.ops.aten.slice.Tensor, value, axis, start, start + 1)
        editing.finish(editing.call(torch.ops.aten.squeeze.dim, value, axis))
