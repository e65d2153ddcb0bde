"""A network over its steps in ONNX: every layer step by step, or each after its whole window."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from cos_export.network import SpikingNetwork
from cos_export.network.schedule import over_window
from cos_export.network.wires import Wires
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.neurons import LayerValues, unroll_neurons
from cos_export.onnx_file.synapses import Synapse, synapse
from cos_export.onnx_file.windows import fire_in_window

__all__ = ["IMAGES", "Unrolled", "all_at_once", "feeding_neurons", "layer_after_layer"]

IMAGES = "images"

Unrolled = tuple[tuple[str, ...], dict[str, tuple[str, ...]]]
"""What reaches the Output, for each step or once for all; and by layer the spikes of each step, still to be joined."""


def all_at_once(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, *, per_sample: bool
) -> Unrolled:
    """Every layer step by step."""
    wires: Wires[tuple[str, ...]] = Wires(network)
    layers: dict[str, LayerValues] = {}
    for name, parts in wires.walk():
        arriving = _summed(builder, name, parts) if parts else _sent_images(builder, network, images, steps)
        if name in network.neurons:
            layers[name] = unroll_neurons(builder, name, network.neurons[name], arriving, steps, per_sample=per_sample)
            wires[name] = layers[name].spikes
        else:
            apply = _synapse(builder, network, name)
            # What is the same in several steps is computed once.
            made: dict[str, str] = {}
            for t, value in enumerate(arriving):
                if value not in made:
                    made[value] = apply(value, f"{_step(name, t, arriving)}/current")
            wires[name] = tuple(made[value] for value in arriving)
    return wires.readout, {name: layer.fired for name, layer in layers.items()}


def _sent_images(builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int) -> tuple[str, ...]:
    """What the Input sends in each step, or once for all: the images, and zeros after `input_steps`; or its frames."""
    if network.input_encoding == "frames":
        numbers = [builder.constant(f"{IMAGES}/t{t + 1}/number", np.array(t, np.int64)) for t in range(steps)]
        return tuple(
            builder.add("Gather", [images, number], f"{IMAGES}/t{t + 1}", axis=1) for t, number in enumerate(numbers)
        )
    shown = network.input_steps
    if shown is None or steps <= shown:
        return (images,)
    none = builder.add("Mul", [images, builder.constant(f"{IMAGES}/zero", np.array(0, np.float32))], f"{IMAGES}/none")
    return (images,) * shown + (none,) * (steps - shown)


def layer_after_layer(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, *, per_sample: bool
) -> Unrolled:
    """Every layer after its whole window, one pass of each synapse; the spikes of a window come in one piece.

    Behind the last neurons a synapse runs once for each step of the readout, before them once for all.
    """
    inner = feeding_neurons(network)
    wires: Wires[tuple[str, ...]] = Wires(network)
    read: dict[str, tuple[str, ...]] = {}
    sent = _sent_images(builder, network, images, steps)
    held = _over_window(builder, sent, steps)
    for name, parts in wires.walk():
        if name in network.neurons:
            (current,) = _summed(builder, name, parts)
            window = fire_in_window(builder, name, network.neurons[name], current, steps, per_sample=per_sample)
            wires[name] = (window.counts,)
            if name in network.layers_read_out:
                read[name] = _steps_of(builder, name, window.counts, steps)
        elif name in inner:
            (arriving,) = _summed(builder, name, parts) if parts else (held,)
            wires[name] = (_synapse(builder, network, name, steps)(arriving, f"{name}/current"),)
        else:
            wires[name] = ()
    return _readout(builder, network, network.output_name, {**read, network.input_name: sent}), {}


def _over_window(builder: GraphBuilder, sent: tuple[str, ...], steps: int) -> str:
    """What the Input sends over a window: what is held T times, or the sum of the frames."""
    if len(sent) < steps:
        count = builder.constant(f"{IMAGES}/steps", np.array(steps, np.float32))
        return builder.add("Mul", [sent[0], count], f"{IMAGES}/window")
    total = sent[0]
    for t, frame in enumerate(sent[1:], start=2):
        total = builder.add("Add", [total, frame], f"{IMAGES}/window/sum{t}")
    return total


def feeding_neurons(network: SpikingNetwork) -> frozenset[str]:
    """The nodes that feed some layer of neurons, through synapses alone."""
    feeding: set[str] = set()
    waiting = list(network.layers)
    while waiting:
        fresh = {source for source in network.predecessors[waiting.pop()] if source not in network.neurons} - feeding
        feeding |= fresh
        waiting += fresh
    return frozenset(feeding)


def _steps_of(builder: GraphBuilder, name: str, counts: str, steps: int) -> tuple[str, ...]:
    """The spikes of a window, one value (batch, ...) of float32 for each step."""
    train = []
    for k in range(1, steps + 1):
        number = builder.constant(f"{name}/t{k}/number", np.array(k, np.float32))
        fired = builder.add("GreaterOrEqual", [counts, number], f"{name}/t{k}/fired")
        train.append(builder.add("Cast", [fired], f"{name}/t{k}/spike", to=TensorProto.FLOAT))
    return tuple(train)


def _readout(
    builder: GraphBuilder, network: SpikingNetwork, name: str, outputs: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What leaves a node between the last neurons and the Output, by step or once for all; `outputs` is added to."""
    if name in outputs:
        return outputs[name]
    parts = [_readout(builder, network, source, outputs) for source in network.predecessors[name]]
    arriving = _summed(builder, f"readout/{name}", parts)
    apply = _synapse(builder, network, name)
    outputs[name] = tuple(
        apply(value, f"readout/{_step(name, t, arriving)}/current") for t, value in enumerate(arriving)
    )
    return outputs[name]


def _synapse(builder: GraphBuilder, network: SpikingNetwork, name: str, window: int = 1) -> Synapse:
    """What appends a node, for what is the sum of `window` steps."""
    sources, node = network.predecessors[name], over_window(network.graph.nodes[name], window)
    shape = network.shapes[sources[0]] if sources else network.input_shape
    return synapse(node, builder, name, shape, network.shapes[name])


def _step(name: str, t: int, values: tuple[str, ...]) -> str:
    return f"{name}/t{t + 1}" if len(values) > 1 else name


def _summed(builder: GraphBuilder, name: str, arriving: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The sum of what several edges bring, in the order of the edges, as the reference adds them."""
    total = arriving[0]
    for number, values in enumerate(arriving[1:], start=2):
        pairs = max(total, values, key=len)
        total = tuple(
            builder.add(
                "Add",
                [total[t if len(total) > 1 else 0], values[t if len(values) > 1 else 0]],
                f"{_step(name, t, pairs)}/sum{number}",
            )
            for t in range(len(pairs))
        )
    return total
