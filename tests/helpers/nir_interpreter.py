"""NIR's equations in numpy, from a file: nothing of the package is used here.

m(t) = v(t-1) + r dt I(t);    s(t) = m(t) > theta, or >=;    v(t) = v_reset, or m(t) - theta, where s(t), else m(t)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["Interpreted", "interpret"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Interpreted:
    """Spikes by node, (T, samples, ...), and what reaches the Output at each step, (T, samples, classes)."""

    spikes: Mapping[str, Array]
    outputs: Array

    @property
    def logits(self) -> Array:
        """The mean of the first t outputs."""
        count = np.arange(1, len(self.outputs) + 1).reshape(-1, *[1] * (self.outputs.ndim - 1))
        return self.outputs.cumsum(axis=0) / count


def interpret(
    path: Path,
    frames: Array,
    *,
    subtract: bool,
    at_threshold: bool,
    dt: float = 1.0,
    v_init: Mapping[str, Array] | None = None,
) -> Interpreted:
    """Runs a file.

    Args:
        path: The file.
        frames: What the Input sends, (T, samples, ...).
        subtract: Whether the threshold is subtracted; else v_reset is set.
        at_threshold: Whether a neuron at its threshold fires.
        dt: Length of a step.
        v_init: Initial potentials by node; 0 elsewhere.
    """
    with h5py.File(path) as file:
        nodes = {name: {key: _value(item) for key, item in group.items()} for name, group in file["node/nodes"].items()}
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
    sources = {name: [a for a, b in edges if b == name] for name in nodes}
    order: list[str] = []
    while len(order) < len(nodes):
        order += [name for name in nodes if name not in order and all(source in order for source in sources[name])]
    potentials: dict[str, Array] = {}
    spikes: dict[str, list[Array]] = {name: [] for name, node in nodes.items() if node["type"] == "IF"}
    outputs: list[Array] = []
    for frame in frames.astype(np.float64):
        sent: dict[str, Array] = {}
        for name in order:
            node = nodes[name]
            arriving = sum((sent[source] for source in sources[name]), np.zeros(()))
            if node["type"] == "Input":
                sent[name] = frame
            elif node["type"] == "IF":
                start = 0.0 if v_init is None or name not in v_init else v_init[name].astype(np.float64)
                charged = potentials.get(name, start + np.zeros_like(arriving)) + node["r"] * dt * arriving
                theta = node["v_threshold"]
                fired = charged >= theta if at_threshold else charged > theta
                after = charged - theta if subtract else np.broadcast_to(node.get("v_reset", 0.0), charged.shape)
                potentials[name] = np.where(fired, after, charged)
                spikes[name].append(fired)
                sent[name] = fired.astype(np.float64)
            else:
                sent[name] = _OPERATIONS[node["type"]](node, arriving)
            if node["type"] == "Output":
                outputs.append(sent[name])
    return Interpreted({name: np.stack(fired) for name, fired in spikes.items()}, np.stack(outputs))


def _value(item: Any) -> Any:
    value = None if isinstance(item, h5py.Group) else item[()]
    if isinstance(value, bytes):
        return value.decode()
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def _pair(value: Any) -> tuple[int, int]:
    first, last = np.broadcast_to(np.ravel(value), 2)
    return int(first), int(last)


def _patches(values: Array, kernel: tuple[int, int], stride: Any, padding: Any, dilation: Any = 1) -> Array:
    """(samples, channels, rows, columns, kernel rows, kernel columns)."""
    (up, right), (down, along), (far, wide) = _pair(padding), _pair(stride), _pair(dilation)
    padded = np.pad(values, ((0, 0), (0, 0), (up, up), (right, right)))
    rows = (padded.shape[2] - far * (kernel[0] - 1) - 1) // down + 1
    columns = (padded.shape[3] - wide * (kernel[1] - 1) - 1) // along + 1
    result = np.empty((*values.shape[:2], rows, columns, *kernel))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            result[..., i, j] = padded[
                :, :, i * far : i * far + down * rows : down, j * wide : j * wide + along * columns : along
            ][:, :, :rows, :columns]
    return result


def _conv2d(node: Mapping[str, Any], values: Array) -> Array:
    weight, groups = node["weight"], int(node["groups"])
    patches = _patches(values, weight.shape[2:], node["stride"], node["padding"], node["dilation"])
    parts = [
        np.einsum("nchwij,ocij->nohw", one, kernels)
        for one, kernels in zip(np.split(patches, groups, axis=1), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(parts, axis=1) + np.reshape(node["bias"], (1, -1, 1, 1))


def _pool(node: Mapping[str, Any], values: Array) -> Array:
    patches = _patches(values, _pair(node["kernel_size"]), node["stride"], node["padding"])
    return np.asarray(patches.sum(axis=(-2, -1)))


def _flatten(node: Mapping[str, Any], values: Array) -> Array:
    axes = values.ndim - 1
    first, last = int(node["start_dim"]) % axes + 1, int(node["end_dim"]) % axes + 1
    return values.reshape(*values.shape[:first], -1, *values.shape[last + 1 :])


_OPERATIONS = {
    "Output": lambda node, values: values,
    "Affine": lambda node, values: values @ node["weight"].T + node["bias"],
    "Linear": lambda node, values: values @ node["weight"].T,
    "Scale": lambda node, values: values * node["scale"],
    "Conv2d": _conv2d,
    "SumPool2d": _pool,
    "AvgPool2d": lambda node, values: _pool(node, values) / np.prod(_pair(node["kernel_size"])),
    "Flatten": _flatten,
}
