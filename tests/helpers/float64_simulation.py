"""A network run in plain numpy and float64, straight from the equations: nothing of the package but its data classes.

    m(t) = v(t-1) + I(t) + beta(t);  s(t) = [m(t) >= theta], or >;  v(t) = m(t) - theta s(t), or v_reset where s(t)

Layer by layer, n = clip(floor(m / theta), 0, T) spikes of m = v_init + the sums over the window, which are the first n
of it; strictly above the threshold one less where theta divides m. A silent neuron's spikes go nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from cos_export.network import SpikingNetwork

Array = Any


@dataclass(frozen=True)
class Simulated:
    """Spikes by layer, (T, samples, ...), and the mean readout of the first t steps, (T, samples, ...)."""

    spikes: dict[str, Array]
    logits: Array


def simulate_float64(network: SpikingNetwork, images: Array, steps: int) -> Simulated:
    """Runs a network of either schedule.

    Args:
        network: What to run.
        images: (samples, ...), or frames (samples, T, ...) for a network of frames.
        steps: T.
    """
    frames = _inputs(network, images, steps)
    sources = {name: [str(a) for a, b in network.graph.edges if str(b) == name] for name in network.graph.nodes}
    order: list[str] = []
    while len(order) < len(sources):
        order += [name for name in sources if name not in order and all(a in order for a in sources[name])]
    wires: dict[str, Array] = {}
    spikes: dict[str, Array] = {}
    for name in order:
        node = network.graph.nodes[name]
        arriving = sum((wires[source] for source in sources[name]), np.zeros(()))
        if isinstance(node, nir.Input):
            wires[name] = frames
        elif name in network.neurons:
            fire = _in_window if network.schedule == "layerwise" else _step_by_step
            spikes[name] = fire(network.neurons[name], arriving)
            wires[name] = spikes[name].astype(np.float64)
        elif isinstance(node, nir.Output):
            outputs = arriving
        else:
            wires[name] = np.stack([_through(node, values) for values in arriving])
    counts = np.arange(1, steps + 1).reshape(-1, *[1] * (outputs.ndim - 1))
    scale = 1.0 if network.quantisation is None else network.quantisation.readout_scale
    return Simulated(spikes, outputs.cumsum(0) / counts * scale)


def _inputs(network: SpikingNetwork, images: Array, steps: int) -> Array:
    """What the Input sends, (T, samples, ...)."""
    coding = network.quantisation
    values = np.asarray(images, np.float32)
    if coding is not None:
        # One product in float32, rounded half to even.
        scaled = values * np.float32(1.0 / coding.input_scale)
        values = np.clip(np.rint(scaled), coding.input_minimum, coding.input_maximum)
    each = values.astype(np.float64)
    if network.input_encoding == "frames":
        return np.moveaxis(each, 1, 0)[:steps]
    held = np.repeat(each[None], steps, 0)
    held[steps if network.input_steps is None else network.input_steps :] = 0
    return held


def _bias(spec: Any, steps: int) -> Array:
    """beta, (T, channels, 1, ...)."""
    table = np.zeros((steps, spec.shape[0]))
    if spec.bias is not None:
        table[: len(spec.bias)] = spec.bias[:steps]
    return table.reshape(steps, -1, *[1] * (len(spec.shape) - 1))


def _step_by_step(spec: Any, currents: Array) -> Array:
    v = np.broadcast_to(spec.v_init.astype(np.float64), currents.shape[1:])
    fired = np.zeros(currents.shape, bool)
    for t, (current, beta) in enumerate(zip(currents, _bias(spec, len(currents)), strict=True)):
        m = v + current + beta
        fired[t] = m > spec.threshold if spec.condition == ">" else m >= spec.threshold
        after = m - spec.threshold if spec.reset == "subtract" else spec.v_reset
        v = np.where(fired[t], after, m)
    return fired if spec.silent is None else fired & ~spec.silent.astype(bool)


def _in_window(spec: Any, currents: Array) -> Array:
    steps = len(currents)
    m = spec.v_init.astype(np.float64) + currents.sum(0) + _bias(spec, steps).sum(0)
    # Neurons are compared and not divided: a quotient may round to a whole number.
    levels = np.arange(1, steps + 1).reshape(-1, *[1] * m.ndim) * spec.threshold.astype(np.float64)
    fired = m > levels if spec.condition == ">" else m >= levels
    return fired if spec.silent is None else fired & ~spec.silent.astype(bool)


def _through(node: Any, x: Array) -> Array:
    """A node on (samples, ...)."""
    if isinstance(node, nir.Flatten):
        axes = x.ndim - 1
        first, last = int(node.start_dim) % axes + 1, int(node.end_dim) % axes + 1
        return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        kernel, stride, border = (_numbers(value, 2) for value in (node.kernel_size, node.stride, node.padding))
        taps = _taps(x, kernel, stride, [(p, p) for p in border], [1, 1])
        return taps.sum((-2, -1)) / (np.prod(kernel) if isinstance(node, nir.AvgPool2d) else 1)
    weight = np.asarray(node.weight, np.float64)
    if isinstance(node, (nir.Affine, nir.Linear)):
        out = np.einsum("ni,oi->no", x, weight)
    else:
        axes = weight.ndim - 2
        dilation = _numbers(node.dilation, axes)
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if isinstance(node.padding, str):
            padding = [(span // 2, span - span // 2) if node.padding == "same" else (0, 0) for span in spans]
        else:
            padding = [(p, p) for p in _numbers(node.padding, axes)]
        taps = _taps(x, list(weight.shape[2:]), _numbers(node.stride, axes), padding, dilation)
        letters = "xy"[:axes], "ij"[:axes]
        each = f"nc{letters[0]}{letters[1]},oc{letters[1]}->no{letters[0]}"
        groups = int(node.groups)
        parts = zip(np.split(taps, groups, 1), np.split(weight, groups), strict=True)
        out = np.concatenate([np.einsum(each, part, kernels) for part, kernels in parts], 1)
    bias = getattr(node, "bias", None)
    return out if bias is None else out + np.reshape(bias, (-1, *[1] * (out.ndim - 2)))


def _numbers(value: Any, axes: int) -> list[int]:
    return [int(number) for number in np.broadcast_to(np.ravel(value), axes)]


def _taps(x: Array, kernel: list[int], stride: list[int], padding: list[Any], dilation: list[int]) -> Array:
    """(samples, channels, places ..., taps ...) of zero-padded windows."""
    padded = np.pad(x, [(0, 0), (0, 0), *padding])
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(2, x.ndim)))
    apart = tuple(slice(None, None, step) for step in stride)
    return windows[(slice(None), slice(None), *apart, *(slice(None, None, step) for step in dilation))]
