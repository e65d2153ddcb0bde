"""Whether an ONNX file computes what the network does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from cos_export.errors import NetworkError, ParityError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.onnx_file.outputs import trace_of
from cos_export.onnx_file.session import (
    ARRAYS_FOLDER,
    constants_are_cheap,
    open_session,
    plenty_of_seconds,
    run_session,
)
from cos_export.parity.local import LocalResult, check_local
from cos_export.parity.states import FEW, compared_states
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Trace

__all__ = ["OnnxCheck", "check_onnx"]


@dataclass(frozen=True)
class OnnxCheck:
    """How a file's run on random inputs compares with the reference.

    Attributes:
        spike_slots: Neurons times steps times samples that were compared.
        differing: How many spikes differ from `simulate`. In float32 a potential within rounding of its
            threshold may go either way, and what follows from that differs too.
        logit_difference: The largest distance of a logit from that of `simulate`.
    """

    spike_slots: int
    differing: int
    logit_difference: float


def check_onnx(
    network: SpikingNetwork, path: Path, steps: int, calibration: PerSampleCalibration | None = None
) -> OnnxCheck:
    """Checks a file with ONNX's own checker, and runs it in ONNX Runtime against the reference.

    Each layer is given the file's own input spikes and earlier spikes, and its potentials are computed in
    float64: every spike must then follow from them, or be within the bound of rounding (`check_local`). So one flip
    near a threshold does not condemn the layers after it, and a wrong node in them does not hide behind it.

    Args:
        network: What the file was made of.
        path: The file.
        steps: T of the file.
        calibration: The per-sample method whose pre-simulation is in the file. Its states must be those that the
            reference sets, in float32 but for the few that a spike within rounding of its threshold changes.

    Raises:
        NetworkError: ONNX or ONNX Runtime refuses the file.
        ParityError: It computes something else.
    """
    images = _images(network, steps)
    trace = _run(path, images, network, steps, calibration)
    local = check_local(network, images, trace, states=trace.states)
    if local.violations:
        raise ParityError(_violated(local))
    reference = simulate(network, images, steps, calibration=calibration, device="cpu")
    if trace.states is not None and reference.states is not None:
        _, fault = compared_states(network, trace.states, reference.states, few=FEW)
        if fault:
            raise ParityError(f"The ONNX graph pre-simulates something else than the reference: of its states {fault}")
    differing = sum(int((trace.spikes[name] != reference.spikes[name]).sum()) for name in network.layers)
    distance = float(np.abs(trace.logits - reference.logits).max())
    if network.quantisation is not None and (differing or not np.array_equal(trace.logits, reference.logits)):
        raise ParityError(
            f"In fixed point no spike and no logit may differ: {differing} spikes of the ONNX graph do, and the logits "
            f"by up to {distance:.3g}."
        )
    return OnnxCheck(
        spike_slots=sum(array.size for array in trace.spikes.values()),
        differing=differing,
        logit_difference=distance,
    )


def _violated(local: LocalResult) -> str:
    wrong = {name: int(layer.violations.sum()) for name, layer in local.layers.items()}
    if any(wrong.values()):
        listed = ", ".join(f"{name!r} {count}" for name, count in wrong.items() if count)
        return f"The ONNX graph fires spikes that its currents do not explain, by layer: {listed}."
    first = local.listed[0]
    return (
        f"The ONNX graph's logits are not what its own spikes give: at step {first.step} that of class {first.neuron} "
        f"is {first.margin:.3g} off, and rounding explains {first.bound:.3g}."
    )


_LARGE = 2**20
"""Bytes of an array that no operator reads a shape or an axis from."""


def _images(network: SpikingNetwork, steps: int) -> FloatArray:
    """Three samples: like pixels, like normalised pixels, and far out."""
    generator = np.random.default_rng(0)
    shape = (*((steps,) if network.input_encoding == "frames" else ()), *network.input_shape)
    samples = [generator.random(shape), generator.normal(size=shape), 4.0 * generator.normal(size=shape)]
    return np.stack(samples).astype(np.float32)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, whose large arrays say their shape and type alone: each copy of it would hold them once more."""
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _LARGE:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    return model


def _run(
    path: Path, images: FloatArray, network: SpikingNetwork, steps: int, calibration: PerSampleCalibration | None
) -> Trace:
    options = onnxruntime.SessionOptions()
    # Level 2 warns of each overridable initializer, which are meant to be so.
    options.log_severity_level = 3
    outputs = ["logits", *(f"spikes/{name}" for name in network.layers)]
    extra = 0 if calibration is None else calibration.presimulated_steps + calibration.rho
    try:
        # By its path, for arrays may lie in a file beside it.
        onnx.checker.check_model(str(path), full_check=True)
        model = _without_weights(onnx.load(path, load_external_data=False))
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        if calibration is not None:
            outputs += [entry.name for entry in model.graph.output if entry.name not in outputs]
        seconds = plenty_of_seconds(network, len(images), steps + extra)
        options.add_session_config_entry(ARRAYS_FOLDER, str(path.parent))
        session = open_session(path, options, ["CPUExecutionProvider"], seconds, cheap=constants_are_cheap(model.graph))
        values = run_session(session, outputs, {"images": images}, seconds)
    except Exception as error:
        # ONNX Runtime's errors have no other common base.
        raise NetworkError(f"The ONNX graph that was built cannot be run: {error}") from error
    return trace_of(network, dict(zip(outputs, values, strict=True)), per_sample=calibration is not None)
