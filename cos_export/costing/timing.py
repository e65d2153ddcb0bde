"""Time in steps: until the readout, and until the next image may come."""

from __future__ import annotations

from dataclasses import dataclass

from cos_export.costing.step_counts import StepCounts
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.network.windows import windows
from cos_export.simulation import PerSampleCalibration

__all__ = ["Depth", "Timing", "depth_of", "readout_latency", "timing"]


@dataclass(frozen=True)
class Depth:
    """The longest path from the Input to the Output.

    Attributes:
        layers: D, the spiking layers on it.
        hops: The synapses and pooling nodes on it.
    """

    layers: int
    hops: int


@dataclass(frozen=True)
class Timing:
    """What one image takes, in steps.

    Attributes:
        steps_per_layer: For which each layer is busy with it: its pre-simulation and its T steps.
        latency: Until the readout of T steps is complete, if a spike arrives in the step in which it is sent.
        latency_with_hops: Likewise where every synapse delivers one step late.
        interval: After which the next image may follow.
        depth: The longest path.
    """

    steps_per_layer: int
    latency: int
    latency_with_hops: int
    interval: int
    depth: Depth


def depth_of(network: SpikingNetwork) -> Depth:
    """The longest path by layers, and that by synapses and pooling nodes."""
    layers: dict[str, int] = {}
    hops: dict[str, int] = {}
    for name in network.order:
        sources = network.predecessors[name]
        kind = facts(network.graph.nodes[name]).kind
        layers[name] = max((layers[source] for source in sources), default=0) + (kind == "neurons")
        hops[name] = max((hops[source] for source in sources), default=0) + (kind in ("synapse", "pooling"))
    return Depth(layers[network.output_name], hops[network.output_name])


def readout_latency(
    network: SpikingNetwork, steps: int, at: int, calibration: PerSampleCalibration | None = None
) -> int:
    """The steps until the first `at` of `steps` steps of the readout are done.

    synchronous                         at
    layerwise                           (T - 1) D + at
    per sample, all layers together     rho + at
    per sample, layer by layer          rho D + at: layer l is pre-simulated on what layer l - 1 fires when calibrated

    where rho is the number of steps that are pre-simulated.
    """
    if calibration is None:
        return at + (windows(network, steps).readout_opens if network.schedule == "layerwise" else 0)
    waits = 1 if calibration.presimulated(network) is not None else depth_of(network).layers
    return calibration.presimulated_steps * waits + at


def timing(network: SpikingNetwork, steps: int, calibration: PerSampleCalibration | None = None) -> Timing:
    """The time that one image takes in T = `steps` steps; `calibration` is a per-sample method, which pays for its own.

    A layer that is pre-simulated may take up the next image when its own run has ended; one that has more steps of
    pre-simulation above it than T fires for as many.
    """
    depth = depth_of(network)
    latency = readout_latency(network, steps, steps, calibration)
    if calibration is None:
        busy = interval = steps
        if network.schedule == "layerwise":
            interval = windows(network, steps).interval
    else:
        counts = StepCounts(network, steps, calibration)
        run = max(steps + counts.later(name, steps) for name in network.layers)
        busy = interval = calibration.presimulated_steps + run
    return Timing(busy, latency, latency + depth.hops, interval, depth)
