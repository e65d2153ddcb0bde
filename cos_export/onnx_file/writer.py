"""The T-step graph of a network, and its file."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
from onnx import TensorProto

from cos_export.atomic_file import atomic_write
from cos_export.bounds import MAX_STEPS
from cos_export.network import FloatArray, Quantisation, SpikingNetwork, check_network
from cos_export.network.schedule import over_window
from cos_export.network.wires import Wires
from cos_export.nir_file.graph_metadata import graph_metadata, producer
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.check import OnnxCheck, check_onnx
from cos_export.onnx_file.folding import fold_neurons
from cos_export.onnx_file.neurons import LayerValues, unroll_neurons
from cos_export.onnx_file.pruning import LOGITS
from cos_export.onnx_file.synapses import Synapse, synapse
from cos_export.onnx_file.windows import fire_in_window
from cos_export.simulation.fixed_point import input_gain
from cos_export.whole_number import whole_number

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
    check_network(network)
    model = build_model(network, steps, per_sample=per_sample)
    with atomic_write(path) as draft:
        draft.write_bytes(model.SerializeToString())
        return check_onnx(network, draft, steps)


def build_model(network: SpikingNetwork, steps: int, *, per_sample: bool = False) -> onnx.ModelProto:
    """Unrolls a network over its steps.

    The graph has these inputs, of which a run must give the first only:

        images              (batch, ...) float32, held for all steps (or the network's `input_steps`, and zero
                            afterwards); a network of integers rounds them first
        v_init/<layer>      (1 or batch, ...) float32, by default the layer's own
        silent/<layer>      (1 or batch, ...) bool, likewise; where a layer has a mask, or with `per_sample`

    and these outputs:

        logits              (steps, batch, classes): entry t - 1 is the mean readout of the first t steps
        spikes/<layer>      (steps, batch, ...) bool

    `threshold/<layer>` (one number if all are equal) and `bias/<layer>` (steps, channels, 1, ...) are plain
    initializers. Values are named after their layer and step, as in `conv2/t3/charge`. What depends on the
    constant input alone is computed once.

    In a network of the layer-wise schedule a synapse runs once, on the number of spikes in its window; `bias/<layer>`
    is the sum over the window, (channels, 1, ...), and the spikes are those of each layer's own window. In float32,
    potentials and thresholds that are the same over a channel are taken into the synapses before them by the graph
    itself (`cos_export.onnx_file.folding`).

    Args:
        network: What to unroll.
        steps: T.
        per_sample: Whether every layer gets a silent mask.

    Raises:
        InputError: `steps` is below 1.
        NetworkError: The arrays are larger than one file can hold.
    """
    steps = whole_number("The number of steps", steps, 1, MAX_STEPS)
    builder = GraphBuilder()
    builder.reserve(IMAGES, LOGITS)
    for kind in ("spikes", "threshold", "v_init", "silent", "bias", "v_reset"):
        builder.reserve(*(f"{kind}/{name}" for name in network.layers))
    images = builder.input(IMAGES, ("batch", *network.input_shape))
    if network.quantisation is not None:
        images = _encoded(builder, images, network.quantisation)
    builder.output(LOGITS, TensorProto.FLOAT, (steps, "batch", *network.output_shape))
    unroll = _layer_after_layer if network.schedule == "layerwise" else _all_at_once
    outputs, fired = unroll(builder, network, images, steps, per_sample=per_sample)
    _mean_readout(builder, outputs, steps, network.quantisation)
    for name, values in fired.items():
        builder.stack(values, f"spikes/{name}")
        builder.output(f"spikes/{name}", TensorProto.BOOL, (steps, "batch", *network.shapes[name]))
    metadata = {key: _text(value) for key, value in graph_metadata(network).items()}
    model = builder.model("spiking_network", producer(), {**metadata, "steps": str(steps)})
    if network.schedule == "layerwise" and network.quantisation is None and not per_sample:
        fold_neurons(model, network.layers)
    return model


_Unrolled = tuple[tuple[str, ...], dict[str, tuple[str, ...]]]
"""What reaches the Output, for each step or once for all; and by layer the spikes of each step, still to be joined."""


def _all_at_once(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, *, per_sample: bool
) -> _Unrolled:
    """Every layer step by step."""
    wires: Wires[tuple[str, ...]] = Wires(network)
    layers: dict[str, LayerValues] = {}
    for name, parts in wires.walk():
        arriving = _summed(builder, name, parts) if parts else _held_images(builder, images, steps, network.input_steps)
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


def _held_images(builder: GraphBuilder, images: str, steps: int, shown: int | None) -> tuple[str, ...]:
    """What the Input sends in each step, or once for all: the images, and zeros after `shown` steps."""
    if shown is None or steps <= shown:
        return (images,)
    none = builder.add("Mul", [images, builder.constant(f"{IMAGES}/zero", np.array(0, np.float32))], f"{IMAGES}/none")
    return (images,) * shown + (none,) * (steps - shown)


def _layer_after_layer(
    builder: GraphBuilder, network: SpikingNetwork, images: str, steps: int, *, per_sample: bool
) -> _Unrolled:
    """Every layer after its whole window, one pass of each synapse; the spikes of a window come in one piece.

    Behind the last neurons a synapse runs once for each step of the readout, before them once for all.
    """
    inner = _feeding_neurons(network)
    wires: Wires[tuple[str, ...]] = Wires(network)
    read: dict[str, tuple[str, ...]] = {}
    count = builder.constant(f"{IMAGES}/steps", np.array(steps, np.float32))
    held = builder.add("Mul", [images, count], f"{IMAGES}/window") if steps > 1 else images
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
    return _readout(builder, network, network.output_name, {**read, network.input_name: (images,)}), {}


def _feeding_neurons(network: SpikingNetwork) -> frozenset[str]:
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


def _text(value: str | int | float | FloatArray) -> str:
    """As ONNX keeps metadata: an array as a JSON list, of the shortest decimals that give its float32 values."""
    return json.dumps([float(str(item)) for item in value]) if isinstance(value, np.ndarray) else str(value)


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
    """The integers of `cos_export.simulation.fixed_point.quantise_input`, operation by operation."""
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
