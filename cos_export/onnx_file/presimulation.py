"""A per-sample method's pre-simulation as ONNX nodes: from a layer's currents to what it starts from.

The order of operations is that of `calibration.methods`, so that equal currents give equal states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import FloatArray, NeuronSpec, Quantisation
from cos_export.onnx_file.neurons import NeuronNodes, threshold_of
from cos_export.simulation.fixed_point import LARGEST_START
from cos_export.simulation.presimulation import EPSILON, NEVER_SILENT, RESIDUAL, OffsetCorrection

__all__ = ["corrected_start", "half_start", "silent_by_residual"]

_FAR = float(np.finfo(np.float32).max)
"""What no potential reaches: in place of infinity, which some runtimes treat in ways of their own."""


@dataclass(frozen=True)
class _Extremes:
    """v(rho), the spikes fired (if they were counted), min v(t) where s(t) = 1 and max v(t) where s(t) = 0."""

    residual: str
    count: str
    lowest: str
    highest: str


def corrected_start(
    nodes: NeuronNodes, currents: Sequence[str], rule: OffsetCorrection, quantisation: Quantisation | None
) -> str:
    """The initial potentials that correct offset spikes, (batch, ...), under the name `v_init/<layer>`.

    Args:
        nodes: The layer.
        currents: One value for each step, rho of them at least, or one for all.
        rule: The correction.
        quantisation: Of a network of integers, which starts from half-integers.

    Raises:
        NetworkError: The layer is reset to a value: the shift of the potential holds for the soft reset only.
    """
    builder, name, spec = nodes.builder, nodes.name, nodes.spec
    if spec.reset == "value":
        raise NetworkError(f"COS needs the soft reset, and layer {name!r} is reset to a value.")
    theta = threshold_of(spec)
    one = np.float32(1)
    numbers = _Numbers(nodes)
    far = numbers("far", np.array(_FAR, np.float32))
    epsilon = numbers("epsilon", np.float32(EPSILON) * theta)
    above = numbers("above", theta + np.float32(EPSILON) * theta)
    never = numbers("never_silent", np.float32(NEVER_SILENT) * theta)
    start = nodes.own_start(f"{name}/before", reserved=False)
    known = _extremes(nodes, start, currents, rule.rho, f"{name}/pre1", far, numbers, counted=rule.iterations > 1)
    first = known
    for k in range(1, rule.iterations + 1):
        prefix = f"{name}/pre{k}"
        if k > 1:
            known = _extremes(nodes, start, currents, rule.rho, prefix, far, numbers, counted=False)
        below = numbers(f"pre{k}_below", np.float32(-(k - 1)) * theta)
        too_many = builder.add("Less", [first.residual, below], f"{prefix}/below")
        has_fired = builder.add("Less", [known.lowest, far], f"{prefix}/has_fired")
        too_many = builder.add("And", [too_many, has_fired], f"{prefix}/too_many")
        if rule.iterations > 1:
            least = numbers(f"pre{k}_least", np.array(k - 1, np.float32))
            enough = builder.add("Greater", [first.count, least], f"{prefix}/enough")
            too_many = builder.add("And", [too_many, enough], f"{prefix}/too_many_of_them")
        down = builder.add("Add", [known.lowest, epsilon], f"{prefix}/lowest_above")
        down = builder.add("Max", [down, nodes.threshold], f"{prefix}/down")
        lowered = builder.add("Sub", [start, down], f"{prefix}/lowered")
        start = builder.add("Where", [too_many, lowered, start], f"{prefix}/without_the_spike")
        reach = nodes.threshold if k == 1 else numbers(f"pre{k}_reach", np.float32(k) * theta * one)
        too_few = builder.add("GreaterOrEqual", [first.residual, reach], f"{prefix}/too_few")
        up = builder.add("Max", [known.highest, never], f"{prefix}/highest_at_least")
        up = builder.add("Sub", [above, up], f"{prefix}/missing")
        up = builder.add("Max", [up, nodes.threshold], f"{prefix}/up")
        raised = builder.add("Add", [start, up], f"{prefix}/raised")
        last = k == rule.iterations and quantisation is None
        start = builder.add(
            "Where",
            [too_few, raised, start],
            f"v_init/{name}" if last else f"{prefix}/with_the_spike",
            reserved=last,
        )
    if quantisation is None:
        return start
    least, most = (numbers(what, np.array(value, np.float32)) for what, value in _REACH)
    reached = builder.add("Clip", [start, least, most], f"{name}/reached")
    strict = spec.condition == ">"
    whole = builder.add("Ceil" if strict else "Floor", [reached], f"{name}/whole")
    half = numbers("half", np.array(-0.5 if strict else 0.5, np.float32))
    return builder.add("Add", [whole, half], f"v_init/{name}", reserved=True)


_REACH = (("least", -LARGEST_START), ("most", LARGEST_START))


def half_start(spec: NeuronSpec, quantisation: Quantisation | None) -> tuple[FloatArray, FloatArray]:
    """Theta / 2, (1, ...), from which a pre-simulation starts; and what the run starts from: a half-integer of it."""
    half = (np.asarray(spec.threshold, np.float32) / np.float32(2))[np.newaxis]
    if quantisation is None:
        return half, half
    reached = np.clip(half, -LARGEST_START, LARGEST_START)
    strict = spec.condition == ">"
    whole = np.ceil(reached) - np.float32(0.5) if strict else np.floor(reached) + np.float32(0.5)
    return half, whole.astype(np.float32)


def silent_by_residual(nodes: NeuronNodes, residual: str) -> str:
    """Which neurons are silent in the run, (batch, ...) under the name `silent/<layer>`: v(tau) <= theta / 1000."""
    bound = _Numbers(nodes)("residual", np.float32(RESIDUAL) * threshold_of(nodes.spec))
    return nodes.builder.add("LessOrEqual", [residual, bound], f"silent/{nodes.name}", reserved=True)


class _Numbers:
    """Constants of a layer's pre-simulation."""

    def __init__(self, nodes: NeuronNodes) -> None:
        self._nodes = nodes

    def __call__(self, what: str, value: NDArray[np.float32]) -> str:
        return self._nodes.builder.constant(f"{self._nodes.name}/pre/{what}", np.asarray(value, np.float32))


def _extremes(
    nodes: NeuronNodes,
    start: str,
    currents: Sequence[str],
    rho: int,
    prefix: str,
    far: str,
    numbers: _Numbers,
    *,
    counted: bool,
) -> _Extremes:
    """Rho steps from `start`, of which running minima and maxima are kept."""
    builder = nodes.builder
    beyond = numbers(f"{prefix.rpartition('/')[2]}_beyond", np.array(-_FAR, np.float32))
    potential, count, lowest, highest = start, "", "", ""
    for t in range(rho):
        step = nodes.charged(potential, currents, t, prefix)
        potential = nodes.after(step, t, prefix)
        name = f"{prefix}/t{t + 1}"
        after_spike = builder.add("Where", [step.fired, potential, far], f"{name}/after_spike")
        in_silence = builder.add("Where", [step.fired, beyond, potential], f"{name}/in_silence")
        if t == 0:
            lowest, highest, count = after_spike, in_silence, step.spike
            continue
        lowest = builder.add("Min", [lowest, after_spike], f"{name}/lowest")
        highest = builder.add("Max", [highest, in_silence], f"{name}/highest")
        if counted:
            count = builder.add("Add", [count, step.spike], f"{name}/count")
    return _Extremes(potential, count, lowest, highest)
