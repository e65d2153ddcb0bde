"""The T-step graph of a network, and its file."""

from __future__ import annotations

import os

import onnx
from onnx import TensorProto

from cos_export.bounds import MAX_STEPS
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork, check_network
from cos_export.nir_file.graph_metadata import producer
from cos_export.onnx_file.builder import MAX_BYTES, OPSET, GraphBuilder
from cos_export.onnx_file.check import OnnxCheck, check_onnx
from cos_export.onnx_file.description import (
    about_graph,
    about_images,
    about_logits,
    about_spikes,
    about_state,
    metadata,
)
from cos_export.onnx_file.ends import mean_readout, quantised_input
from cos_export.onnx_file.folding import fold_neurons
from cos_export.onnx_file.layer_after_layer import layer_after_layer
from cos_export.onnx_file.pruning import LOGITS
from cos_export.onnx_file.storing import store
from cos_export.onnx_file.unrolling import IMAGES, all_at_once
from cos_export.simulation import PerSampleCalibration
from cos_export.simulation.presimulation import OffsetCorrection, PreSimulationRule
from cos_export.whole_number import whole_number

__all__ = ["build_model", "write_onnx"]


def write_onnx(
    network: SpikingNetwork,
    path: str | os.PathLike[str],
    steps: int,
    *,
    calibration: PerSampleCalibration | None = None,
    opset: int = OPSET,
    external_above: int = MAX_BYTES,
) -> OnnxCheck:
    """Writes a network as an ONNX file that runs `steps` steps.

    The file is checked by ONNX and run in ONNX Runtime against `simulate` before it is moved into place. What
    the graph takes and returns is said at `build_model`. Arrays of more than `external_above` bytes in all lie in a
    second file beside it, `path` with ".data" behind its name, which is moved into place first.

    Args:
        network: What to write.
        path: The file; one that is there is replaced.
        steps: T.
        calibration: A per-sample method, whose pre-simulation becomes part of the graph.
        opset: Of ONNX, from 13 to 23. The IR version is the least that belongs to it.
        external_above: Bytes of arrays that the file itself may hold.

    Returns:
        How well the file agreed with `simulate`.

    Raises:
        InputError: `steps` is below 1, `opset` cannot be written, or the file cannot be.
        NetworkError: ONNX or ONNX Runtime refuses the graph, or it is too large for one file.
        ParityError: The file computes something else than `simulate`.
    """
    check_network(network)
    rule = None if calibration is None else calibration.presimulation
    builder = unrolled(network, steps, presimulation=rule, opset=opset)

    def finish(apart: str | None) -> onnx.ModelProto:
        return finished_model(builder, network, steps, presimulation=rule, apart=apart)

    return store(path, builder, finish, lambda draft: check_onnx(network, draft, steps, calibration), external_above)


def build_model(
    network: SpikingNetwork, steps: int, *, presimulation: PreSimulationRule | None = None, opset: int = OPSET
) -> onnx.ModelProto:
    """Unrolls a network over its steps.

    The graph has one input:

        images              (batch, ...) float32, held for all steps (or the network's `input_steps`, and zero
                            afterwards), or (batch, steps, ...) for a network that takes frames; a network of integers
                            rounds them first

    and these outputs:

        logits              (steps, batch, classes): entry t - 1 is the mean readout of the first t steps
        spikes/<layer>      (steps, batch, ...) bool
        v_init/<layer>      (batch, ...) float32, what each sample starts from, with an `OffsetCorrection`
        silent/<layer>      (batch, ...) bool, whose spikes each sample drops, with a `ResidualSilencing`

    In any other graph `v_init/<layer>` (1, ...), and `silent/<layer>` where a layer has a mask, are initializers, as
    are `threshold/<layer>` (one number if all are equal) and `bias/<layer>` (steps, channels, 1, ...). The weights of
    a network of integers are int8, with a Cast to float32 behind them. Values are named after their layer and step, as
    in `conv2/t3/charge`. What depends on the constant input alone is computed once.

    In a network of the layer-wise schedule a synapse runs once, on the number of spikes in its window; `bias/<layer>`
    is the sum over the window, (channels, 1, ...), and the spikes are those of each layer's own window. In float32,
    potentials and thresholds that are the same over a channel are taken into the synapses before them by the graph
    itself (`cos_export.onnx_file.folding`).

    Args:
        network: What to unroll.
        steps: T.
        presimulation: What a per-sample method makes of its extra steps, which the graph computes first.
        opset: Of ONNX, from 13 to 23.

    Raises:
        InputError: `steps` is below 1, or `opset` cannot be written, or there is nothing to pre-simulate under the
            layer-wise schedule.
        NetworkError: The arrays are larger than one model can hold in memory.
    """
    builder = unrolled(network, steps, presimulation=presimulation, opset=opset)
    return finished_model(builder, network, steps, presimulation=presimulation)


def unrolled(
    network: SpikingNetwork, steps: int, *, presimulation: PreSimulationRule | None, opset: int
) -> GraphBuilder:
    """The nodes and arrays of the graph; see `build_model`."""
    steps = whole_number("The number of steps", steps, 1, MAX_STEPS)
    if presimulation is not None and network.input_encoding == "frames":
        raise InputError("A pre-simulation takes an input that is held, and frames change from step to step.")
    builder = GraphBuilder(opset, integers=network.quantisation is not None)
    builder.reserve(IMAGES, LOGITS)
    for kind in ("spikes", "threshold", "v_init", "silent", "bias", "v_reset"):
        builder.reserve(*(f"{kind}/{name}" for name in network.layers))
    frames = (steps,) if network.input_encoding == "frames" else ()
    images = builder.input(IMAGES, ("batch", *frames, *network.input_shape), about_images(network))
    if network.quantisation is not None:
        images = quantised_input(builder, images, network.quantisation)
    builder.output(LOGITS, TensorProto.FLOAT, (steps, "batch", *network.output_shape), about_logits(steps))
    if network.schedule == "synchronous":
        outputs, fired = all_at_once(builder, network, images, steps, presimulation)
    elif presimulation is None:
        outputs, fired = layer_after_layer(builder, network, images, steps)
    else:
        raise InputError("Under the layer-wise schedule there is nothing to pre-simulate. Write it without.")
    mean_readout(builder, outputs, steps, network.quantisation, len(network.output_shape))
    for name in network.layers:
        if name in fired:
            builder.stack(fired[name], f"spikes/{name}")
        shape: tuple[int | str, ...] = (steps, "batch", *network.shapes[name])
        builder.output(f"spikes/{name}", TensorProto.BOOL, shape, about_spikes(network, name))
        if presimulation is not None:
            kind, element = state_of(presimulation)
            builder.output(f"{kind}/{name}", element, ("batch", *network.shapes[name]), about_state(kind, name))
    return builder


def state_of(presimulation: PreSimulationRule) -> tuple[str, int]:
    """What a pre-simulation sets for each sample: the kind of the outputs, and their type."""
    if isinstance(presimulation, OffsetCorrection):
        return "v_init", TensorProto.FLOAT
    return "silent", TensorProto.BOOL


def finished_model(
    builder: GraphBuilder,
    network: SpikingNetwork,
    steps: int,
    *,
    presimulation: PreSimulationRule | None,
    apart: str | None = None,
) -> onnx.ModelProto:
    """The graph as a model, with its arrays in the file called `apart` if there is one."""
    encoding = "output" if isinstance(presimulation, OffsetCorrection) else "initializer"
    about = about_graph(network, steps, presimulation)
    known = metadata(network, encoding, steps, 0 if presimulation is None else presimulation.steps)
    model = builder.model("spiking_network", producer(), known, about, beside=apart)
    if network.schedule == "layerwise" and network.quantisation is None:
        fold_neurons(model, network.layers, builder.arrays)
    return model
