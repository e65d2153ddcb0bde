"""Whether an ONNX file computes what the network does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import NetworkError, ParityError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.neuron import NeuronTensors
from cos_export.propagation import Program
from cos_export.simulation import mean_readout, simulate

__all__ = ["OnnxCheck", "check_onnx"]

_TOLERANCE = 1e-4
"""Of a sum's size, how far float32 may be off: generous, since this looks for graphs that are wrong."""


@dataclass(frozen=True)
class OnnxCheck:
    """How a file's run on random inputs compares with the reference.

    Attributes:
        spike_slots: Neurons times steps times samples that were compared.
        differing: How many spikes differ from `simulate`. In float32 a potential within rounding of its
            threshold may go either way, and what follows from that differs too.
        logit_error: The largest distance of a logit from what the file's own spikes give in float64.
    """

    spike_slots: int
    differing: int
    logit_error: float


def check_onnx(network: SpikingNetwork, path: Path, steps: int) -> OnnxCheck:
    """Checks a file with ONNX's own checker, and runs it in ONNX Runtime against the reference.

    Each layer is given the file's own input spikes and earlier spikes, and its potentials are computed in
    float64: every spike must then follow from them, or be within rounding. So one flip near a threshold does not
    condemn the layers after it, and a wrong node in them does not hide behind it.

    Args:
        network: What the file was made of.
        path: The file.
        steps: T of the file.

    Raises:
        NetworkError: ONNX or ONNX Runtime refuses the file.
        ParityError: It computes something else.
    """
    images = _images(network)
    logits, spikes = _run(path, images, network)
    wrong, forced = _follow(network, images, steps, spikes)
    if wrong:
        listed = ", ".join(f"{name!r} {count}" for name, count in wrong.items())
        raise ParityError(f"The ONNX graph fires spikes that its currents do not explain, by layer: {listed}.")
    distance = np.abs(logits - forced)
    reference = simulate(network, images, steps, device="cpu")
    differing = sum(int((spikes[name] != reference.spikes[name]).sum()) for name in spikes)
    if network.quantisation is not None and (differing or not np.array_equal(logits, reference.logits)):
        raise ParityError(
            f"In fixed point no spike and no logit may differ: {differing} spikes of the ONNX graph do, and the logits "
            f"by up to {np.abs(logits - reference.logits).max():.3g}."
        )
    if not np.all(distance <= _TOLERANCE * (np.abs(forced).max() + 1e-3)):
        raise ParityError(f"The ONNX graph's logits are up to {distance.max():.3g} off what its own spikes give.")
    return OnnxCheck(
        spike_slots=sum(array.size for array in spikes.values()),
        differing=differing,
        logit_error=float(distance.max()),
    )


def _images(network: SpikingNetwork) -> FloatArray:
    """Three samples: like pixels, like normalised pixels, and far out."""
    generator = np.random.default_rng(0)
    shape = network.input_shape
    samples = [generator.random(shape), generator.normal(size=shape), 4.0 * generator.normal(size=shape)]
    return np.stack(samples).astype(np.float32)


def _run(path: Path, images: FloatArray, network: SpikingNetwork) -> tuple[FloatArray, dict[str, NDArray[np.bool_]]]:
    options = onnxruntime.SessionOptions()
    # Level 2 warns of each overridable initializer, which are meant to be so.
    options.log_severity_level = 3
    outputs = ["logits", *(f"spikes/{name}" for name in network.layers)]
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        logits, *spikes = session.run(outputs, {"images": images})
    except Exception as error:
        # ONNX Runtime's errors have no other common base.
        raise NetworkError(f"The ONNX graph that was built cannot be run: {error}") from error
    return logits, dict(zip(network.layers, spikes, strict=True))


def _follow(
    network: SpikingNetwork, images: FloatArray, steps: int, spikes: Mapping[str, NDArray[np.bool_]]
) -> tuple[dict[str, int], NDArray[np.float64]]:
    """How many of a run's spikes do not follow from its own earlier ones by layer, and the logits that they give."""
    wrong: dict[str, int] = {}

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        fired = torch.from_numpy(spikes[name])
        count = _unexplained(neuron, currents, fired)
        if count:
            wrong[name] = count
        return fired.to(currents.dtype)

    with torch.no_grad():
        program = Program(network, "cpu", torch.float64)
        outputs = program.propagate(torch.from_numpy(images).double(), rule)
        return wrong, mean_readout(outputs, steps, program.readout_scale).numpy()


def _unexplained(neuron: NeuronTensors, currents: Tensor, fired: Tensor) -> int:
    potential = neuron.v_init.expand(fired.shape[1:])
    # A potential sums up to t currents, each with an error in proportion to the layer's largest.
    scale = float(neuron.threshold.max() + neuron.v_init.abs().max())
    largest = float(currents.abs().max())
    if neuron.v_reset is not None:
        scale += float(neuron.v_reset.abs().max())
    count = 0
    for t in range(len(fired)):
        current = currents[t if len(currents) > 1 else 0]
        if neuron.bias is not None and t < len(neuron.bias):
            current = current + neuron.bias[t].reshape(-1, *[1] * (current.ndim - 2))
            largest = max(largest, float(current.abs().max()))
        charge = potential + current
        should = charge > neuron.threshold if neuron.strict else charge >= neuron.threshold
        scale += largest
        wrong = (should != fired[t]) & ((charge - neuron.threshold).abs() > _TOLERANCE * scale)
        spike = fired[t]
        if neuron.silent is not None:
            # A silenced neuron's spikes are not seen, so it goes its own way.
            wrong &= ~neuron.silent
            wrong |= fired[t] & neuron.silent
            spike = torch.where(neuron.silent, should, spike)
        count += int(wrong.sum())
        if neuron.v_reset is None:
            potential = charge - neuron.threshold * spike
        else:
            potential = torch.where(spike, neuron.v_reset, charge)
    return count
