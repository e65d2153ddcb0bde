"""Proofs from the weights alone that every number of a network of integers is one, and fits.

Bounds are worst cases: spikes in {0, 1}, an input anywhere in its range, window sums up to the window's size. They
hold for every input, and in whatever order a backend adds. In a network of the layer-wise schedule every sum is one
over T steps, and nothing fires before it is complete.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.node_facts import bias_of, facts, weight_field
from cos_export.network.schedule import summed_steps
from cos_export.network.wires import Wires
from cos_export.quantisation.integrality import check_integers
from cos_export.quantisation.intervals import Bound, Interval, carried, completed, input_interval
from cos_export.quantisation.step_ranges import reaches
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL, LARGEST_START

__all__ = ["LARGEST_SUM", "LayerRange", "check_ranges", "layer_ranges"]

LARGEST_SUM = 2**24
"""Up to here every integer is a float32 number."""


@dataclass(frozen=True)
class LayerRange:
    """What can occur in a layer, or at the Output, in its integers.

    Attributes:
        name: The layer, or the Output node.
        weight_minimum: Of all synapses whose sum it takes.
        weight_maximum: Likewise.
        bias_largest: The largest magnitude of their biases.
        current_minimum: The least current.
        current_maximum: The largest.
        largest_sum: What no partial sum on the way to it exceeds.
        threshold_minimum: theta; 0 at the Output.
        threshold_maximum: Likewise.
        potential_minimum: The least potential before the reset within T steps; at the Output, of the sum over T.
        potential_maximum: The largest.
        steps_that_fit: The largest T for which potentials stay within 24 bits (the sum within 2^24), None if any.
    """

    name: str
    weight_minimum: int
    weight_maximum: int
    bias_largest: int
    current_minimum: int
    current_maximum: int
    largest_sum: int
    threshold_minimum: int
    threshold_maximum: int
    potential_minimum: float
    potential_maximum: float
    steps_that_fit: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def check_ranges(network: SpikingNetwork, steps: int, *, per_sample: bool = False) -> tuple[LayerRange, ...]:
    """Proves that a network of integers is one and stays in range for `steps` steps.

    Args:
        network: Of integers.
        steps: T.
        per_sample: Whether each sample sets initial potentials of its own, anywhere up to `LARGEST_START`.

    Returns:
        The ranges of each layer and of the Output, in topological order.

    Raises:
        InputError: It is not a network of integers.
        NetworkError: A number is not an integer, or a range does not fit; the message names the layer or node.
    """
    ranges = layer_ranges(network, steps, per_sample=per_sample)
    for entry in ranges:
        if entry.steps_that_fit is not None and entry.steps_that_fit < steps:
            what, limit = ("potential", "24 bits") if entry.threshold_maximum else ("sum of the readout", "2^24")
            raise NetworkError(
                f"Layer {entry.name!r}: within {steps} steps its {what} may reach {entry.potential_minimum:,.0f} or "
                f"{entry.potential_maximum:,.0f}, beyond {limit}. {entry.steps_that_fit} steps fit; with smaller "
                "weights or initial potentials more would."
            )
    return ranges


def layer_ranges(network: SpikingNetwork, steps: int, *, per_sample: bool = False) -> tuple[LayerRange, ...]:
    """The ranges of each layer and of the Output; errors are those of `check_ranges`, but for potentials."""
    quantisation = network.quantisation
    if quantisation is None:
        raise InputError("Ranges are proved of a network of integers. Quantise it first.")
    check_integers(network)
    if network.input_steps is not None:
        return _ranges_by_step(network, quantisation, steps, LARGEST_START if per_sample else 0.0)
    window = summed_steps(network.schedule, steps)
    wires: Wires[Interval] = Wires(network)
    ranges: list[LayerRange] = []
    for name, parts in wires.walk():
        node = network.graph.nodes[name]
        arriving = Interval(*(np.sum(bounds, axis=0) for bounds in zip(*parts, strict=True))) if parts else None
        if arriving is None:
            wires[name] = input_interval(quantisation, network.input_shape[0])
            continue
        if name in network.neurons or name == network.output_name:
            spec = network.neurons.get(name)
            ranges.append(_range(network, name, spec, arriving, steps, LARGEST_START if per_sample else 0.0))
            channels = np.ones(network.shapes[name][0])
            wires[name] = Interval(0.0 * channels, channels, channels)
        else:
            try:
                wires[name] = carried(node, completed(arriving), network.shapes[network.predecessors[name][0]])
            except NetworkError as error:
                raise NetworkError(f"Node {name!r}: {error}") from None
        largest = float(wires[name].partial.max()) * window
        if largest >= LARGEST_SUM:
            over = f" over {window} steps" if window > 1 else ""
            raise NetworkError(
                f"Node {name!r}: its sums{over} may reach {largest:,.0f}, and integers are exact below 2^24 only. It "
                f"has too many weights, or too large a bias, for {quantisation.weight_bits} bits. Where synapses "
                "follow each other without an activation their integers multiply: put an activation between them, make "
                "the layer narrower, or export float32."
            )
    return tuple(ranges)


def _ranges_by_step(
    network: SpikingNetwork, quantisation: Quantisation, steps: int, start: float
) -> tuple[LayerRange, ...]:
    """The ranges of a network whose layers may fire in some steps only."""
    ranges = []
    for name, reach in reaches(network, quantisation, steps, start, LARGEST_POTENTIAL, LARGEST_SUM):
        weights, biases = _synapses_before(network, name)
        theta = network.neurons[name].threshold if name in network.neurons else np.zeros(1)
        ranges.append(
            LayerRange(
                name=name,
                weight_minimum=int(min((w.min() for w in weights), default=0)),
                weight_maximum=int(max((w.max() for w in weights), default=0)),
                bias_largest=int(max((np.abs(b).max() for b in biases), default=0)),
                threshold_minimum=int(theta.min()),
                threshold_maximum=int(theta.max()),
                **reach._asdict(),
            )
        )
    return tuple(ranges)


def _range(
    network: SpikingNetwork, name: str, spec: NeuronSpec | None, arriving: Interval, steps: int, start: float
) -> LayerRange:
    """The ranges of a layer, or of the Output if `spec` is None, where the sum over the steps is the potential.

    After a step v is below theta if nothing fired, and else m - theta, which is at least 0 (or it is v_reset). So the
    largest m grows by what the largest current exceeds theta by, and the least m falls by the least current. Under the
    layer-wise schedule m is v_init and T currents, and T theta must be a number, too.
    """
    low, high, partial = _with_bias(spec, arriving)
    if float(partial.max()) >= LARGEST_SUM:
        raise NetworkError(f"Layer {name!r}: its currents may reach {float(partial.max()):,.0f}, beyond 2^24.")
    top, bottom = np.zeros_like(high), np.zeros_like(low)
    rise, fall, limit, free = partial, partial, float(LARGEST_SUM - 1), 0
    theta = np.zeros((1, 1))
    if spec is not None:
        theta, v_init = (np.asarray(part, np.float64).reshape(len(low), -1) for part in (spec.threshold, spec.v_init))
        v_reset = 0.0 * v_init if spec.v_reset is None else spec.v_reset.reshape(v_init.shape)
        top = np.maximum(np.maximum(theta, v_init), np.maximum(v_reset, start)).max(1) + high
        bottom = np.minimum(np.minimum(v_init, v_reset), -start).min(1)
        rise = np.maximum(high - theta.min(1), 0.0) if spec.reset == "subtract" else 0.0 * high
        fall, limit, free = np.maximum(-low, 0.0), float(LARGEST_POTENTIAL), 1
        if network.schedule == "layerwise":
            top, bottom = np.maximum(v_init.max(1), start), np.minimum(v_init.min(1), -start)
            rise, free = np.maximum(high, 0.0), 0
    fits = [_fitting(limit - top, rise, free), _fitting(limit + bottom, fall, 0)]
    if network.schedule == "layerwise":
        every = np.ones_like(top)
        fits += [_fitting((LARGEST_SUM - 1) * every, partial, 0), _fitting(limit * every, theta.max(1) * every, 0)]
    if spec is None:
        rise, fall = np.maximum(high, 0.0), np.maximum(-low, 0.0)
    known = [count for count in fits if count is not None]
    weights, biases = _synapses_before(network, name)
    return LayerRange(
        name=name,
        weight_minimum=int(min((w.min() for w in weights), default=0)),
        weight_maximum=int(max((w.max() for w in weights), default=0)),
        bias_largest=int(max((np.abs(b).max() for b in biases), default=0)),
        current_minimum=int(low.min()),
        current_maximum=int(high.max()),
        largest_sum=int(partial.max()),
        threshold_minimum=int(theta.min()),
        threshold_maximum=int(theta.max()),
        potential_minimum=float((bottom - steps * fall).min()),
        potential_maximum=float((top + (steps - free) * rise).max()),
        steps_that_fit=min(known) if known else None,
    )


def _with_bias(spec: NeuronSpec | None, arriving: Interval) -> Interval:
    """What a layer is charged with: its current, and at some steps its bias."""
    if spec is None or spec.bias is None:
        return arriving
    least, most = np.minimum(spec.bias.min(0), 0.0), np.maximum(spec.bias.max(0), 0.0)
    return Interval(arriving.low + least, arriving.high + most, arriving.partial + np.maximum(-least, most))


def _fitting(room: Bound, drift: Bound, free: int) -> int | None:
    """The most steps, of which the first `free` cost nothing, whose drift fits into `room`; None if all do."""
    if float(room.min()) < 0:
        return 0
    moving = drift > 0
    if not moving.any():
        return None
    return free + int(np.floor(room[moving] / drift[moving]).min())


def _synapses_before(network: SpikingNetwork, name: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The weights and biases of the synapses whose outputs are added at `name`."""
    weights: list[NDArray[Any]] = []
    biases: list[NDArray[Any]] = []
    for source in network.predecessors[name]:
        node = network.graph.nodes[source]
        if facts(node).weighted:
            weights.append(np.asarray(getattr(node, weight_field(node))))
            bias = bias_of(node)
            if bias is not None:
                biases.append(bias)
        elif source not in network.neurons and source != network.input_name:
            behind = _synapses_before(network, source)
            weights += behind[0]
            biases += behind[1]
    return weights, biases
