"""A network of the layer-wise schedule in ONNX: every layer after its whole window, one pass of each synapse."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from cos_export.network import SpikingNetwork
from cos_export.network.wires import Wires
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.unrolling import IMAGES, Unrolled, input_values, node_synapse, step_name, summed
from cos_export.onnx_file.windows import fire_in_window

__all__ = ["feeding_neurons", "layer_after_layer"]


def layer_after_layer(builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int) -> Unrolled:
    """Every layer after its whole window, one pass of each synapse; the spikes of a window come in one piece.

    Behind the last neurons a synapse runs once for each step of the readout, before them once for all.
    """
    inner = feeding_neurons(network)
    wires: Wires[tuple[str, ...]] = Wires(network)
    read: dict[str, tuple[str, ...]] = {}
    inputs = input_values(builder, network, images, steps)
    held = _over_window(builder, inputs, steps)
    for name, parts in wires.walk():
        if name in network.neurons:
            (current,) = summed(builder, name, parts)
            window = fire_in_window(builder, name, network.neurons[name], current, steps)
            wires[name] = (window.counts,)
            if name in network.layers_read_out:
                read[name] = _steps_of(builder, name, window.counts, steps)
        elif name in inner:
            (arriving,) = summed(builder, name, parts) if parts else (held,)
            wires[name] = (node_synapse(builder, network, name, steps)(arriving, f"{name}/current"),)
        else:
            wires[name] = ()
    return _readout(builder, network, network.output_name, {**read, network.input_name: inputs}), {}


def _over_window(builder: GraphBuilder, inputs: tuple[str, ...], steps: int) -> str:
    """What the Input sends over a window: what is held T times, or the sum of the frames."""
    if len(inputs) < steps:
        count = builder.constant(f"{IMAGES}/steps", np.array(steps, np.float32))
        return builder.add("Mul", [inputs[0], count], f"{IMAGES}/window")
    total = inputs[0]
    for t, frame in enumerate(inputs[1:], start=2):
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
    arriving = summed(builder, f"readout/{name}", parts)
    apply = node_synapse(builder, network, name)
    outputs[name] = tuple(
        apply(value, f"readout/{step_name(name, t, arriving)}/current") for t, value in enumerate(arriving)
    )
    return outputs[name]
