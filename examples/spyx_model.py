"""model.nir in Spyx 1.0.0 (JAX), on its neuron `IF`. Spyx's own importer drops shortcuts and initial potentials.

    pip install spyx==1.0.0 h5py
    pip install --no-deps cos-export
    python examples/spyx_model.py out/digits/model.nir images.npy

A layer-wise network is lowered first (`cos_export.lowered`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spyx.axn
import spyx.nn
from jax import lax

from cos_export.clients.nir_graph import Array, Layer, NirGraph, read_graph
from cos_export.errors import NetworkError

__all__ = ["neurons", "run", "synapse"]

_SURROGATE = spyx.axn.superspike()


def _fires(distance: jax.Array) -> jax.Array:
    """1 at the threshold and above, with the gradient of Spyx's spike, which is 1 above it only."""
    own = _SURROGATE(distance)
    return own + lax.stop_gradient((distance >= 0).astype(distance.dtype) - own)


def neurons(layer: Layer) -> spyx.nn.IF:
    """A layer of Spyx's neurons.

    Raises:
        NetworkError: It fires strictly above its threshold, or is reset to a value.
    """
    if layer.strict or layer.v_reset is not None:
        raise NetworkError(f"Layer {layer.name!r} is not reset by subtraction, or does not fire at its threshold.")
    return spyx.nn.IF(layer.threshold.shape, threshold=jnp.asarray(layer.threshold), activation=_fires)


def synapse(name: str, node: Mapping[str, Any]) -> Callable[[jax.Array], jax.Array]:
    """What a node that does not spike makes of (batch, channels, height, width), or (batch, features).

    Raises:
        NetworkError: There are no such nodes here.
    """
    kind, precision = node["type"], lax.Precision.HIGHEST
    if kind in ("Affine", "Linear"):
        matrix, bias = jnp.asarray(node["weight"], jnp.float32).T, jnp.asarray(node.get("bias", 0), jnp.float32)
        return lambda values: jnp.dot(values, matrix, precision=precision) + bias
    if kind in ("Conv1d", "Conv2d"):
        kernel = jnp.asarray(node["weight"], jnp.float32)
        axes = kernel.ndim - 2
        stride, dilation = (_whole(node[key], axes) for key in ("stride", "dilation"))
        padded = node["padding"]
        padding = padded.upper() if isinstance(padded, str) else [(size, size) for size in _whole(padded, axes)]
        added = jnp.asarray(np.broadcast_to(node["bias"], len(kernel)).reshape(-1, *[1] * axes), jnp.float32)
        groups = {"rhs_dilation": dilation, "feature_group_count": int(node["groups"]), "precision": precision}
        return lambda values: lax.conv_general_dilated(values, kernel, stride, padding, **groups) + added
    if kind in ("SumPool2d", "AvgPool2d"):
        window, stride, margin = (_whole(node[key], 2) for key in ("kernel_size", "stride", "padding"))
        padding = [(0, 0), (0, 0), *((size, size) for size in margin)]
        share = np.float32(1 if kind == "SumPool2d" else 1 / np.prod(window))
        return lambda values: lax.reduce_window(values, 0.0, lax.add, (1, 1, *window), (1, 1, *stride), padding) * share
    if kind == "Flatten":
        first, last = (int(node[key]) for key in ("start_dim", "end_dim"))
        return lambda values: _flattened(values, first, last)
    if kind == "Scale":
        scale = jnp.asarray(node["scale"], jnp.float32)
        return lambda values: values * scale
    if kind == "Output":
        return lambda values: values
    raise NetworkError(f"Node {name!r} is of type {kind}, which this example does not have.")


def _whole(values: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(value) for value in np.broadcast_to(values, (axes,)))


def _flattened(values: jax.Array, first: int, last: int) -> jax.Array:
    """Axes are counted without the batch in the file."""
    first, last = (axis % (values.ndim - 1) + 1 for axis in (first, last))
    return values.reshape(*values.shape[:first], -1, *values.shape[last + 1 :])


def _sent(graph: NirGraph, images: Array, steps: int) -> jax.Array:
    """What the Input sends, (steps, batch, ...)."""
    values = np.asarray(images, np.float32)
    if (rounding := graph.integers) is not None:
        gain = np.float32(1.0 / rounding.scale)
        values = np.clip(np.rint(values * gain), np.float32(rounding.minimum), np.float32(rounding.maximum))
    if graph.encoding.frames:
        return jnp.asarray(values.swapaxes(0, 1)[:steps])
    held = steps if graph.encoding.held is None else graph.encoding.held
    return jnp.stack([jnp.asarray(values) * (t < held) for t in range(steps)])


def run(graph: NirGraph, images: Array, steps: int) -> tuple[dict[str, Array], Array]:
    """The spikes by layer, (steps, batch, ...), and the logits, (steps, batch, classes): the mean readout of each step.

    Raises:
        NetworkError: The network is layer-wise, or a node or a layer is not to be had here.
    """
    if graph.layerwise:
        raise NetworkError("The network is layer-wise: lower it first (cos_export.lowered).")
    layers = {name: neurons(layer) for name, layer in graph.layers.items()}
    rest = [name for name in graph.order if name not in layers and graph.sources[name]]
    synapses = {name: synapse(name, graph.nodes[name]) for name in rest}
    audible = {name: 1 if layer.silent is None else jnp.asarray(~layer.silent) for name, layer in graph.layers.items()}
    biased = {name: layer.bias for name, layer in graph.layers.items() if layer.bias is not None}
    biases = {
        name: jnp.zeros((steps, *graph.layers[name].v_init.shape))
        .at[: len(bias)]
        .set(bias[:steps].reshape(-1, bias.shape[1], *[1] * (graph.layers[name].v_init.ndim - 1)))
        for name, bias in biased.items()
    }

    def step(potentials: dict[str, jax.Array], given: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, Any]:
        wires, left = {}, {}
        for name in graph.order:
            if not graph.sources[name]:
                wires[name] = given[0]
                continue
            arriving = sum(wires[source] for source in graph.sources[name])
            if name in layers:
                # Spyx's neuron fires by the potential that it is given, and charges after that: charged before, with
                # nothing to come, it fires by m = v + I and is left with m - threshold * spike.
                charged = potentials[name] + arriving + given[1].get(name, 0)
                fired, left[name] = layers[name](jnp.zeros_like(charged), charged)
                wires[name] = fired * audible[name]
            else:
                wires[name] = synapses[name](arriving)
        return left, ({name: wires[name] > 0 for name in layers}, wires[graph.output])

    start = {
        name: jnp.broadcast_to(jnp.asarray(layer.v_init), (len(images), *layer.v_init.shape))
        for name, layer in graph.layers.items()
    }
    _, (spikes, outputs) = jax.jit(lambda: lax.scan(step, start, (_sent(graph, images, steps), biases)))()
    sums = np.cumsum(outputs, axis=0)
    past = np.arange(1, steps + 1).reshape(-1, *[1] * (sums.ndim - 1))
    means = (
        sums / past.astype(np.float32) if graph.readout_scale is None else sums * np.float32(graph.readout_scale / past)
    )
    return {name: np.asarray(fired) for name, fired in spikes.items()}, means


def main() -> None:
    """Prints the class of each image."""
    graph = read_graph(sys.argv[1])
    print(*run(graph, np.load(sys.argv[2], allow_pickle=False), graph.steps or 1)[1][-1].argmax(-1), sep="\n")


if __name__ == "__main__":
    main()
