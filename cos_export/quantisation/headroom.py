"""How fine a scale may be: integers of 24 bits bound what the sums of a network can be counted in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.network.schedule import summed_steps
from cos_export.network.wires import Wires
from cos_export.quantisation.intervals import Bound, Interval, carried, completed
from cos_export.quantisation.ranges import LARGEST_SUM
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL

__all__ = ["finest_scales"]


def finest_scales(network: SpikingNetwork, images: Interval, steps: int) -> Mapping[str, Bound]:
    """The least scale, by channel, in which what each node takes (and hands on in the same scale) fits, by node.

    With R the largest partial sum of a wire in its own units and m the largest potential, both from the weights alone
    for every input,

        scale >= R steps / 2^24        and for neurons        scale >= m / 2^23

    where sums count `steps` times under the layer-wise schedule and at the Output. In a network of integers what is
    above 1 does not fit.

    Args:
        network: The network, of float32 or of integers; without `AvgPool2d`.
        images: What its Input sends.
        steps: T.
    """
    window = summed_steps(network.schedule, steps)
    wires: Wires[Interval] = Wires(network)
    needed: dict[str, Bound] = {}
    for name, parts in wires.walk():
        if not parts:
            wires[name] = images
            continue
        arriving = Interval(*(np.sum(bounds, axis=0) for bounds in zip(*parts, strict=True)))
        spec = network.neurons.get(name)
        times = steps if name == network.output_name else window
        needed[name] = arriving.partial * times / (LARGEST_SUM - 1)
        if spec is not None:
            potential = _potential(spec, arriving, steps, layerwise=network.schedule == "layerwise")
            needed[name] = np.maximum(needed[name], potential / LARGEST_POTENTIAL)
            ones = np.ones(len(spec.threshold))
            wires[name] = Interval(0.0 * ones, ones, ones)
            continue
        node, shape = network.graph.nodes[name], network.shapes[network.predecessors[name][0]]
        wires[name] = carried(node, completed(arriving), shape)
        if not facts(node).weighted and len(wires[name].partial) == len(arriving.partial):
            needed[name] = np.maximum(needed[name], wires[name].partial * times / (LARGEST_SUM - 1))
    return needed


def _potential(spec: NeuronSpec, arriving: Interval, steps: int, *, layerwise: bool) -> Bound:
    """The largest magnitude of a channel's potentials within `steps` steps, and of what the reset may take in all."""
    low, high = arriving.low, arriving.high
    if spec.bias is not None:
        low, high = low + np.minimum(spec.bias.min(0), 0.0), high + np.maximum(spec.bias.max(0), 0.0)
    theta, v_init = (np.asarray(part, np.float64).reshape(len(low), -1) for part in (spec.threshold, spec.v_init))
    # A calibration of the integers sets potentials of its own, of some thresholds.
    start = np.maximum(np.abs(v_init).max(1), steps * theta.max(1))
    if spec.v_reset is not None:
        start = np.maximum(start, np.abs(np.asarray(spec.v_reset, np.float64)).reshape(len(low), -1).max(1))
    fall = start + steps * np.maximum(-low, 0.0)
    if layerwise:
        rise = start + steps * np.maximum(high, 0.0)
    else:
        drift = np.maximum(high - theta.min(1), 0.0) if spec.reset == "subtract" else 0.0 * high
        rise = start + np.maximum(high, 0.0) + (steps - 1) * drift
    return np.asarray(np.maximum(fall, rise))
