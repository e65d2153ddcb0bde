"""Integrate-and-fire neurons as ONNX nodes, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cos_export.network import NeuronSpec
from cos_export.onnx_file.builder import GraphBuilder

__all__ = ["Audible", "Charged", "LayerValues", "NeuronNodes", "audible_of", "silencer", "threshold_of"]


@dataclass(frozen=True)
class LayerValues:
    """What a layer sends on: one value for each step, both after silencing.

    Attributes:
        spikes: As float32 0 and 1, which the next synapses take.
        fired: As booleans, which the `spikes/<layer>` output collects.
    """

    spikes: tuple[str, ...]
    fired: tuple[str, ...]


@dataclass(frozen=True)
class Charged:
    """A step before the reset.

    Attributes:
        charge: m(t).
        fired: s(t) as booleans, before any is silenced.
        spike: The same in float32.
    """

    charge: str
    fired: str
    spike: str


@dataclass(frozen=True)
class Audible:
    """Where a neuron may speak, computed once for all steps: 1 or True there, in float32 and as booleans."""

    number: str
    boolean: str


class NeuronNodes:
    """A layer, whose steps may be written more than once: in a pre-simulation and in the run.

    The order of operations is that of `cos_export.simulation.neuron.step`, so that equal currents give equal spikes.

    Args:
        builder: The graph.
        name: The layer.
        spec: Its neurons.
        steps: The largest number of steps that is written.
    """

    def __init__(self, builder: GraphBuilder, name: str, spec: NeuronSpec, steps: int) -> None:
        self.builder, self.name, self.spec = builder, name, spec
        self.threshold = builder.constant(f"threshold/{name}", threshold_of(spec), reserved=True)
        self._beta = _bias(builder, name, spec, steps)
        # A threshold of 1 needs no product, and a pass over the layer's memory less.
        self._unit = bool((spec.threshold == 1).all())
        self._reset = None
        if spec.reset == "value":
            self._reset = builder.constant(f"v_reset/{name}", np.asarray(spec.v_reset, np.float32), reserved=True)

    def charged(self, potential: str, currents: Sequence[str], t: int, prefix: str) -> Charged:
        """Charge and fire.

        Args:
            potential: v(t - 1).
            currents: One value (batch, ...) for each step, or one for all.
            t: Which step, from 0.
            prefix: Of the names of the nodes.
        """
        builder, step = self.builder, f"{prefix}/t{t + 1}"
        current = currents[t if len(currents) > 1 else 0]
        if t < len(self._beta):
            current = builder.add("Add", [current, self._beta[t]], f"{step}/biased")
        charge = builder.add("Add", [potential, current], f"{step}/charge")
        if t == 0:
            # One sample's potentials plus a batch of currents: a batch, which the next layers' buffers depend on.
            builder.declare(charge, ("batch", *self.spec.shape))
        comparison = "GreaterOrEqual" if self.spec.condition == ">=" else "Greater"
        fired = builder.add(comparison, [charge, self.threshold], f"{step}/fired")
        return Charged(charge, fired, builder.add("Cast", [fired], f"{step}/spike", to=TensorProto.FLOAT))

    def after(self, step: Charged, t: int, prefix: str) -> str:
        """v(t)."""
        name = f"{prefix}/t{t + 1}"
        if self._reset is not None:
            return self.builder.add("Where", [step.fired, self._reset, step.charge], f"{name}/potential")
        drop = step.spike
        if not self._unit:
            drop = self.builder.add("Mul", [step.spike, self.threshold], f"{name}/drop")
        return self.builder.add("Sub", [step.charge, drop], f"{name}/potential")

    def run(
        self, start: str, currents: Sequence[str], steps: int, audible: Audible | None, *, prefix: str = ""
    ) -> LayerValues:
        """Appends `steps` steps of charge, fire and reset; the last reset is left out, since nothing reads it.

        Args:
            start: v(0).
            currents: One value (batch, ...) for each step, or one for all.
            steps: How many.
            audible: Where a neuron may speak; by default everywhere.
            prefix: Of the names of the nodes, by default the layer's name.
        """
        builder, prefix = self.builder, prefix or self.name
        potential = start
        spikes, outgoing = [], []
        for t in range(steps):
            step = self.charged(potential, currents, t, prefix)
            spike, fired = step.spike, step.fired
            if t + 1 < steps:
                potential = self.after(step, t, prefix)
            if audible is not None:
                spike = builder.add("Mul", [spike, audible.number], f"{prefix}/t{t + 1}/sent")
                fired = builder.add("And", [fired, audible.boolean], f"{prefix}/t{t + 1}/sent_fired")
            spikes.append(spike)
            outgoing.append(fired)
        return LayerValues(tuple(spikes), tuple(outgoing))

    def residual(self, start: str, currents: Sequence[str], steps: int, prefix: str) -> tuple[tuple[str, ...], str]:
        """Appends `steps` steps with nothing silenced: the spikes of each in float32, and v(steps)."""
        potential, spikes = start, []
        for t in range(steps):
            step = self.charged(potential, currents, t, prefix)
            potential = self.after(step, t, prefix)
            spikes.append(step.spike)
        return tuple(spikes), potential

    def own_start(self, name: str, *, reserved: bool) -> str:
        """The layer's own v_init as a constant, (1, ...)."""
        value = np.asarray(self.spec.v_init, np.float32)[np.newaxis]
        return self.builder.constant(name, value, reserved=reserved)


def threshold_of(spec: NeuronSpec) -> NDArray[np.float32]:
    """theta, as one number if it is the same everywhere."""
    threshold = np.asarray(spec.threshold, np.float32)
    first = threshold.reshape(-1)[0]
    return np.array(first) if bool((threshold == first).all()) else threshold


def silencer(builder: GraphBuilder, name: str, spec: NeuronSpec) -> Audible | None:
    """Where a layer's own neurons may speak; None if all may."""
    if spec.silent is None:
        return None
    mask = builder.constant(f"silent/{name}", np.asarray(spec.silent, np.bool_)[np.newaxis], reserved=True)
    return audible_of(builder, name, mask)


def audible_of(builder: GraphBuilder, name: str, mask: str) -> Audible:
    """Where a layer's neurons may speak, of a mask of those that may not."""
    speaks = builder.add("Not", [mask], f"{name}/speaks")
    return Audible(builder.add("Cast", [speaks], f"{name}/speaks_float", to=TensorProto.FLOAT), speaks)


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
