"""What Lava's own synapse processes need to compute what a node of the network does.

Lava's convolution differs in layout: its arrays are (width, height, channels), its weights (out channels,
width, height, in channels / groups), and it convolves where a network correlates, so that a kernel must be mirrored.
It pads evenly and holds its numbers in 8 bits. In fixed point its sums have 24 bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from job import Job, Node
from protocol import JobError

__all__ = [
    "check_range",
    "check_weights",
    "convolution",
    "from_lava",
    "identity",
    "lava_shape",
    "pool",
    "port_type",
    "to_lava",
]

_LARGEST = 127
_LARGEST_SUM = 2**23


def port_type(job: Job) -> type:
    """What the ports of the faithful back end carry: float, or int32 as Lava's models in fixed point do."""
    return np.int32 if job.integers else float


def lava_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a port: (width, height, channels), (length, 1, channels) or (features,)."""
    if len(shape) == 3:
        return shape[::-1]
    return (shape[1], 1, shape[0]) if len(shape) == 2 else shape


def to_lava(values: np.ndarray) -> np.ndarray:
    """(channels, height, width), (channels, length) or (features,) as a port has it."""
    if values.ndim == 3:
        return values.transpose(2, 1, 0)
    return values.T[:, None] if values.ndim == 2 else values


def from_lava(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a port holds, in the network's `shape`."""
    return values.transpose(2, 1, 0).reshape(shape) if values.ndim == 3 else values


def _even_axis(weight: np.ndarray, axis: int, pads: tuple[int, int], spread: int) -> tuple[np.ndarray, int, int]:
    """The same sliding sum with as much padding before as after, at the cost of a longer kernel.

    Returns:
        The weight, the padding and the dilation.
    """
    before, after = pads
    if before == after:
        return weight, before, spread
    size = spread * (weight.shape[axis] - 1) + 1
    longer = np.zeros((*weight.shape[:axis], size + abs(after - before), *weight.shape[axis + 1 :]), weight.dtype)
    start = max(after - before, 0)
    place: list[Any] = [slice(None)] * weight.ndim
    place[axis] = slice(start, start + size, spread)
    longer[tuple(place)] = weight
    return longer, max(before, after), 1


def _fewer_groups(weight: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """The same grouped convolution with at most 127 groups: neighbours merge, with zeros between them."""
    if groups <= _LARGEST:
        return weight, groups
    fewer = max(count for count in range(1, _LARGEST + 1) if groups % count == 0)
    merged, (outs, ins) = groups // fewer, (len(weight) // groups, weight.shape[1])
    wide = np.zeros((fewer, merged, outs, merged, ins, *weight.shape[2:]), weight.dtype)
    each = np.arange(merged)
    parts = weight.reshape(fewer, merged, outs, ins, *weight.shape[2:])
    wide[:, each, :, each] = parts.swapaxes(0, 1)
    return wide.reshape(len(weight), merged * ins, *weight.shape[2:]), fewer


def _arguments(
    node: Node,
    in_shape: tuple[int, ...],
    weight: np.ndarray,
    stride: tuple[int, int],
    padding: list[tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> dict[str, Any]:
    weight, groups = _fewer_groups(weight, groups)
    evened = []
    for axis, (pads, spread) in enumerate(zip(padding, dilation, strict=True)):
        weight, pad, spread = _even_axis(weight, axis + 2, pads, spread)
        evened.append((pad, spread))
    small = (*weight.shape[2:], *stride, *(number for pair in evened for number in pair))
    if max(small) > _LARGEST:
        raise JobError(
            f"Node {node.name!r}: Lava's convolution holds kernel, stride, padding and dilation in 8 bits, and one "
            f'of them is {max(small)} here. Use the "batched" back end.'
        )
    mirrored = weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)
    return {
        "weight": np.ascontiguousarray(mirrored, np.float64),
        "input_shape": lava_shape(in_shape),
        "stride": stride[::-1],
        "padding": tuple(pad for pad, _ in evened)[::-1],
        "dilation": tuple(spread for _, spread in evened)[::-1],
        "groups": groups,
    }


def convolution(node: Node, in_shape: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of Lava's `Conv` for a node of kind "convolution", without its bias.

    Raises:
        JobError: It does not fit into the 8 bits of Lava's numbers.
    """
    weight = np.asarray(node.array("weight"), np.float64)
    stride, dilation = tuple(node.settings["stride"]), tuple(node.settings["dilation"])
    padding = [(int(before), int(after)) for before, after in node.settings["padding"]]
    if weight.ndim == 3:
        weight, stride, dilation, padding = weight[:, :, None], (1, *stride), (1, *dilation), [(0, 0), *padding]
    return _arguments(node, in_shape, weight, stride, padding, dilation, node.settings["groups"])


def pool(node: Node, in_shape: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of Lava's `Conv` for a node of kind "pool": each channel a group, and all weights equal.

    Raises:
        JobError: It does not fit into the 8 bits of Lava's numbers.
    """
    kernel = tuple(node.settings["kernel"])
    weight = np.full((in_shape[0], 1, *kernel), 1.0 / node.settings["divisor"])
    padding = [(p, p) for p in node.settings["padding"]]
    return _arguments(node, in_shape, weight, tuple(node.settings["stride"]), padding, (1, 1), in_shape[0])


def identity(shape: tuple[int, ...], dtype: type) -> dict[str, Any]:
    """The arguments of Lava's `Conv` for a synapse that only delays: one channel, one weight of 1."""
    return {"weight": np.ones((1, 1, 1, 1), dtype), "input_shape": (math.prod(shape), 1, 1)}


def check_range(node: Node, largest: float) -> None:
    """Refuses a synapse in fixed point whose sums could pass the 24 bits that Lava's have, where they wrap around.

    Raises:
        JobError: They could.
    """
    if largest >= _LARGEST_SUM:
        raise JobError(
            f"Node {node.name!r}: its sums may reach {largest:.0f}, and Lava's synapses in fixed point end at "
            f'{_LARGEST_SUM - 1}. Use the "batched" back end.'
        )


def check_weights(node: Node, weights: np.ndarray) -> None:
    """Refuses weights in fixed point that do not fit into the 8 bits of Lava's `Dense` and `Sparse`.

    Raises:
        JobError: One does not.
    """
    if weights.min() < -_LARGEST - 1 or weights.max() > _LARGEST:
        raise JobError(
            f"Node {node.name!r}: Lava holds weights in 8 bits, from {-_LARGEST - 1} to {_LARGEST}, and these go from "
            f'{weights.min():.0f} to {weights.max():.0f}. Use the "batched" back end.'
        )
