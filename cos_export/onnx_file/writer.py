"""The T-step graph of a network, and its file."""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import TensorProto

from cos_export.atomic_file import atomic_write
from cos_export.errors import InputError
from cos_export.network import Quantisation, SpikingNetwork
from cos_export.network.wires import Wires
from cos_export.nir_file.metadata import graph_metadata, producer
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.check import OnnxCheck, check_onnx
from cos_export.onnx_file.neurons import LayerValues, unroll_neurons
from cos_export.onnx_file.pruning import LOGITS
from cos_export.onnx_file.synapses import synapse
from cos_export.simulation.fixed_point import input_gain

__all__ = ["IMAGES", "build_model", "write_onnx"]

IMAGES = "images"

INTEGER_LOGITS = "readout/means"
"""The logits of a network of integers before they are scaled."""


def write_onnx(
    network: SpikingNetwork, path: str | os.PathLike[str], steps: int, *, per_sample: bool = False
) -> OnnxCheck:
    """Writes a network as an ONNX file that runs `steps` steps.

    The file is checked by ONNX and run in ONNX Runtime against `simulate` before it is moved into place. What
    the graph takes and returns is said at `build_model`.

    Args:
        network: What to write.
        path: The file; one that is there is replaced.
        steps: T.
        per_sample: Whether a run may override every layer's potentials and silent mask, as per-sample methods do.

    Returns:
        How well the file agreed with `simulate`.

    Raises:
        InputError: `steps` is below 1, or the file cannot be written.
        NetworkError: ONNX or ONNX Runtime refuses the graph, or it is too large for one file.
        ParityError: The file computes something else than `simulate`.
    """
    model = build_model(network, steps, per_sample=per_sample)
    with atomic_write(path) as draft:
        onnx.save_model(model, draft)
        return check_onnx(network, draft, steps)


def build_model(network: SpikingNetwork, steps: int, *, per_sample: bool = False) -> onnx.ModelProto:
    """Unrolls a network over its steps.

    The graph has these inputs, of which a run must give the first only:

        images              (batch, ...) float32, held for all steps; a network of integers rounds them first
        v_init/<layer>      (1 or batch, ...) float32, by default the layer's own
        silent/<layer>      (1 or batch, ...) bool, likewise; where a layer has a mask, or with `per_sample`

    and these outputs:

        logits              (steps, batch, classes): entry t - 1 is the mean readout of the first t steps
        spikes/<layer>      (steps, batch, ...) bool

    `threshold/<layer>` (one number if all are equal) and `bias/<layer>` (steps, channels, 1, ...) are plain
    initializers. Values are named after their layer and step, as in `conv2/t3/charge`. What depends on the
    constant input alone is computed once.

    Args:
        network: What to unroll.
        steps: T.
        per_sample: Whether every layer gets a silent mask.

    Raises:
        InputError: `steps` is below 1.
        NetworkError: The arrays are larger than one file can hold.
    """
    if steps < 1:
        raise InputError(f"The number of steps must be at least 1, and is {steps}.")
    builder = GraphBuilder()
    builder.reserve(IMAGES, LOGITS)
    for kind in ("spikes", "threshold", "v_init", "silent", "bias", "v_reset"):
        builder.reserve(*(f"{kind}/{name}" for name in network.layers))
    wires: Wires[tuple[str, ...]] = Wires(network)
    layers: dict[str, LayerValues] = {}
    images = builder.input(IMAGES, ("batch", *network.input_shape))
    if network.quantisation is not None:
        images = _encoded(builder, images, network.quantisation)
    for name, parts in wires.walk():
        sources = network.predecessors[name]
        arriving = _summed(builder, name, parts) if parts else (images,)
        if name in network.neurons:
            layers[name] = unroll_neurons(builder, name, network.neurons[name], arriving, steps, per_sample=per_sample)
            wires[name] = layers[name].spikes
        else:
            shape = network.shapes[sources[0]] if sources else network.input_shape
            apply = synapse(network.graph.nodes[name], builder, name, shape, network.shapes[name])
            wires[name] = tuple(apply(value, f"{_step(name, t, arriving)}/current") for t, value in enumerate(arriving))
    _mean_readout(builder, wires.readout, steps, network.quantisation)
    builder.output(LOGITS, TensorProto.FLOAT, (steps, "batch", *network.output_shape))
    for name, layer in layers.items():
        builder.stack(layer.fired, f"spikes/{name}")
        builder.output(f"spikes/{name}", TensorProto.BOOL, (steps, "batch", *network.shapes[name]))
    metadata = {key: str(value) for key, value in graph_metadata(network).items()}
    return builder.model("spiking_network", producer(), {**metadata, "steps": str(steps)})


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


def _encoded(builder: GraphBuilder, images: str, quantisation: Quantisation) -> str:
    """The 8-bit integers of `cos_export.simulation.fixed_point.quantise_input`, operation by operation."""
    gain = builder.constant(f"{IMAGES}/gain", np.array(input_gain(quantisation), np.float32))
    low = builder.constant(f"{IMAGES}/minimum", np.array(quantisation.input_minimum, np.float32))
    high = builder.constant(f"{IMAGES}/maximum", np.array(quantisation.input_maximum, np.float32))
    scaled = builder.add("Mul", [images, gain], f"{IMAGES}/scaled")
    rounded = builder.add("Round", [scaled], f"{IMAGES}/rounded")
    return builder.add("Clip", [rounded, low, high], f"{IMAGES}/integers")


def _mean_readout(
    builder: GraphBuilder, outputs: tuple[str, ...], steps: int, quantisation: Quantisation | None
) -> None:
    """The mean of the first t outputs for each t, as the running sum over t, in the unit of the logits."""
    total, means = "", []
    for t in range(steps):
        value = outputs[t if len(outputs) > 1 else 0]
        total = value if t == 0 else builder.add("Add", [total, value], f"readout/t{t + 1}/sum")
        count = builder.constant(f"readout/t{t + 1}/count", np.array(t + 1, np.float32))
        means.append(builder.add("Div", [total, count], f"readout/t{t + 1}/mean"))
    if quantisation is None:
        builder.stack(means, LOGITS)
        return
    builder.reserve(INTEGER_LOGITS)
    builder.stack(means, INTEGER_LOGITS)
    # Behind the stack, for a runtime folds a product that follows a synapse into its weights, which rounds anew.
    scale = builder.constant("readout/scale", np.array(quantisation.readout_scale, np.float32))
    builder.add("Mul", [INTEGER_LOGITS, scale], LOGITS, reserved=True)
