"""A layer of integrate-and-fire neurons, unrolled into ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from cos_export.network import NeuronSpec
from cos_export.onnx_file.builder import GraphBuilder

__all__ = ["LayerValues", "silencer", "threshold_of", "unroll_neurons"]


@dataclass(frozen=True)
class LayerValues:
    """What a layer sends on: one value for each step, both after silencing.

    Attributes:
        spikes: As float32 0 and 1, which the next synapses take.
        fired: As booleans, which the `spikes/<layer>` output collects.
    """

    spikes: tuple[str, ...]
    fired: tuple[str, ...]


def unroll_neurons(
    builder: GraphBuilder, name: str, spec: NeuronSpec, currents: Sequence[str], steps: int, *, per_sample: bool
) -> LayerValues:
    """Appends `steps` steps of charge, fire and reset.

    The order of operations is that of `cos_export.simulation.neuron.step`, so that equal currents give equal spikes.
    The last step's reset is left out, since nothing reads it.

    Args:
        builder: The graph.
        name: The layer.
        spec: Its neurons.
        currents: One value (batch, ...) for each step, or one for all.
        steps: T.
        per_sample: Whether a run may override the potentials and a silent mask, which the layer then always has.
    """
    threshold = builder.constant(f"threshold/{name}", threshold_of(spec), reserved=True)
    potential = builder.held(f"v_init/{name}", np.asarray(spec.v_init, np.float32)[np.newaxis], overridable=per_sample)
    speaks = silencer(builder, name, spec, per_sample)
    beta = _bias(builder, name, spec, steps)
    unit = bool((spec.threshold == 1).all())
    v_reset = None
    if spec.reset == "value":
        v_reset = builder.constant(f"v_reset/{name}", np.asarray(spec.v_reset, np.float32), reserved=True)
    spikes, outgoing = [], []
    for t in range(steps):
        step = f"{name}/t{t + 1}"
        current = currents[t if len(currents) > 1 else 0]
        if t < len(beta):
            current = builder.add("Add", [current, beta[t]], f"{step}/biased")
        charge = builder.add("Add", [potential, current], f"{step}/charge")
        if t == 0:
            # One sample's potentials plus a batch of currents: a batch, which the next layers' buffers depend on.
            builder.declare(charge, ("batch", *spec.shape))
        comparison = "GreaterOrEqual" if spec.condition == ">=" else "Greater"
        fired = builder.add(comparison, [charge, threshold], f"{step}/fired")
        spike = builder.add("Cast", [fired], f"{step}/spike", to=TensorProto.FLOAT)
        if t + 1 < steps:
            if v_reset is not None:
                potential = builder.add("Where", [fired, v_reset, charge], f"{step}/potential")
            else:
                # A threshold of 1 needs no product, and a pass over the layer's memory less.
                drop = spike if unit else builder.add("Mul", [spike, threshold], f"{step}/drop")
                potential = builder.add("Sub", [charge, drop], f"{step}/potential")
        if speaks is not None:
            spike = builder.add("Mul", [spike, speaks[0]], f"{step}/sent")
            fired = builder.add("And", [fired, speaks[1]], f"{step}/sent_fired")
        spikes.append(spike)
        outgoing.append(fired)
    return LayerValues(tuple(spikes), tuple(outgoing))


def threshold_of(spec: NeuronSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """theta, as one number if it is the same everywhere."""
    threshold = np.asarray(spec.threshold, np.float32)
    first = threshold.reshape(-1)[0]
    return np.array(first) if bool((threshold == first).all()) else threshold


def silencer(builder: GraphBuilder, name: str, spec: NeuronSpec, per_sample: bool) -> tuple[str, str] | None:
    """1 or True where a neuron may speak: as float32 and as booleans, computed once for all steps."""
    if spec.silent is None and not per_sample:
        return None
    silent = np.zeros(spec.shape, np.bool_) if spec.silent is None else np.asarray(spec.silent, np.bool_)
    mask = builder.held(f"silent/{name}", silent[np.newaxis], overridable=per_sample)
    speaks = builder.add("Not", [mask], f"{name}/speaks")
    return builder.add("Cast", [speaks], f"{name}/speaks_float", to=TensorProto.FLOAT), speaks


def _bias(builder: GraphBuilder, name: str, spec: NeuronSpec, steps: int) -> list[str]:
    """The rows of the per-step bias, each (channels, 1, ...); none past the table's end."""
    table = spec.bias_per_step(min(steps, 0 if spec.bias is None else len(spec.bias)))
    if table is None or len(table) == 0:
        return []
    whole = builder.constant(f"bias/{name}", table, reserved=True)
    return [
        builder.add(
            "Gather",
            [whole, builder.constant(f"{name}/t{t + 1}/index", np.array(t, np.int64))],
            f"{name}/t{t + 1}/bias",
            axis=0,
        )
        for t in range(len(table))
    ]
