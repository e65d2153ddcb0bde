"""What an ONNX file says of itself: its metadata, and sentences on the graph, its inputs and its outputs."""

from __future__ import annotations

import json
from dataclasses import replace

from cos_export.errors import BundleError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.nir_file.graph_metadata import graph_metadata
from cos_export.onnx_file.step_interface import StepInterface
from cos_export.simulation.fixed_point import input_gain
from cos_export.simulation.presimulation import OffsetCorrection, PreSimulationRule

__all__ = ["PRESIMULATED", "about_graph", "about_images", "about_logits", "about_spikes"]
__all__ += ["about_state", "about_step", "about_step_images", "metadata", "presimulated_steps"]

PRESIMULATED = "presimulated_steps"
"""The key of a file that pre-simulates each sample by itself."""

_DIGITS = 10
"""As many has no number of steps."""


def presimulated_steps(said: str) -> int:
    """The steps that a file says it pre-simulates.

    Raises:
        BundleError: It says no such number.
    """
    if not (said.isascii() and said.isdigit() and len(said) < _DIGITS):
        raise BundleError(f"The ONNX graph of the bundle is damaged: it says {said[:80]!r} for {PRESIMULATED}.")
    return int(said)


def metadata(network: SpikingNetwork, v_init_encoding: str, steps: int, presimulated: int = 0) -> dict[str, str]:
    """The metadata of model.nir as text, but for where the initial potentials are in this file.

    Args:
        network: What the file holds.
        v_init_encoding: "initializer" if `v_init/<layer>` are initializers, "output" if the graph computes them.
        steps: T of the file.
        presimulated: Steps of its pre-simulation, if the file has one.
    """
    known = {key: _text(value) for key, value in graph_metadata(network).items()}
    before = {PRESIMULATED: str(presimulated)} if presimulated else {}
    return {**known, "v_init_encoding": v_init_encoding, "steps": str(steps), **before}


def _text(value: str | int | float | FloatArray) -> str:
    """As ONNX keeps metadata: an array as a JSON list, of the shortest decimals that give its float32 values."""
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps([float(str(item)) for item in value])


def about_graph(network: SpikingNetwork, steps: int, presimulation: PreSimulationRule | None = None) -> str:
    """What the graph of `steps` steps computes."""
    lines = [
        f"{steps} time-steps of {network.neuron_count:,} integrate-and-fire neurons in {len(network.layers)} layers, "
        "unrolled: m = v + I; s = 1 if m >= threshold else 0; v = m - threshold * s.",
        f"Schedule: {network.schedule}. Numerics: {network.numerics}. Calibration: {network.method}.",
        "metadata_props hold the normalisation of images (input_mean, input_std, of pixels / 255) and class_names, if "
        "they are known.",
    ]
    if isinstance(presimulation, OffsetCorrection):
        lines.append(
            f"Each layer is pre-simulated for {presimulation.rho} steps on each sample, which sets its own v_init."
        )
    elif presimulation is not None:
        lines.append(
            f"The network is pre-simulated for {presimulation.tau} steps on each sample, which silences neurons of it."
        )
    return " ".join(lines)


def about_state(kind: str, layer: str) -> str:
    """What a pre-simulation sets in a layer."""
    what = "the initial potentials" if kind == "v_init" else "the neurons whose spikes are dropped"
    return f"(batch, ...): {what} of layer {layer!r} that the pre-simulation has set for each sample."


def about_images(network: SpikingNetwork) -> str:
    """What the images are."""
    rounding = "" if network.quantisation is None else " The graph rounds them to its integers."
    if network.input_encoding == "frames":
        return f"(batch, steps, ...) frames, one input for each step.{rounding}"
    held = "all steps" if network.input_steps is None else f"{network.input_steps} steps, and zero afterwards"
    if network.normalisation is None:
        return f"(batch, ...) images, held for {held}.{rounding}"
    return f"(batch, ...) images, held for {held}: pixels {network.normalisation.words()}.{rounding}"


def about_logits(steps: int) -> str:
    """What the logits are."""
    return (
        f"(steps, batch, classes): entry t - 1 is the mean readout of the first t steps; entry {steps - 1} is the "
        "result. class_names in metadata_props name the classes."
    )


def about_spikes(network: SpikingNetwork, layer: str) -> str:
    """What the spikes of a layer are."""
    window = " of its own window" if network.schedule == "layerwise" else ""
    return f"(steps, batch, ...): whether each neuron of layer {layer!r} fired in each step{window}."


def about_step_images(network: SpikingNetwork) -> str:
    """What the input of a step is."""
    coding, framed = network.quantisation, network.input_encoding == "frames"
    what = "(batch, ...) the frame of this step." if framed else about_images(replace(network, quantisation=None))
    if coding is None:
        return what
    gain = float(input_gain(coding))
    return (
        f"(batch, ...) integers: clip(round(image * float32({gain!r})), {coding.input_minimum}, "
        f"{coding.input_maximum}), rounded half to even. {what}"
    )


def about_step(network: SpikingNetwork, interface: StepInterface) -> str:
    """What a step graph computes, and how to loop over it."""
    numbered = f" {interface.step} = t," if interface.step else ""
    total = f"{interface.readout_scale!r} / {interface.readout_steps}"
    lines = [
        f"One time-step of {network.neuron_count:,} integrate-and-fire neurons in {len(network.layers)} layers: "
        "m = v + I; s = 1 if m >= threshold else 0; v_next = m - threshold * s.",
        f"Run it {interface.steps} times, t = 1..{interface.steps}, with the images,{numbered} {interface.start} = "
        f"(t == 1), and v/<layer> = v_next/<layer> of the run before (zeros in the first).",
        f"The logits are {total} times the sum of {interface.output} over all runs.",
        "To start from other potentials give them as v/<layer> in the first run, with start = false.",
        f"Schedule: {network.schedule}. Numerics: {network.numerics}. Calibration: {network.method}.",
    ]
    return " ".join(lines)
