"""The windows in which the layers of a layer-wise network fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nir
import numpy as np
from numpy.typing import DTypeLike

from cos_export.network.graph import with_attributes
from cos_export.network.node_facts import bias_of, facts
from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["Windows", "over_window", "windows"]


@dataclass(frozen=True)
class Windows:
    """When each layer of a layer-wise network fires, if a spike arrives in the step in which it is sent.

    Attributes:
        steps: T, the length of every window.
        opens: on, by layer: it fires in the steps on + 1 .. on + T, counted from 1.
        readout_opens: Likewise of the readout: the steps over which it takes the mean.
        interval: The number of steps after which the next input may follow.
    """

    steps: int
    opens: Mapping[str, int]
    readout_opens: int
    interval: int

    @property
    def latency(self) -> int:
        """The steps until the readout is complete: T + (T - 1) D for D spiking layers on the longest path."""
        return self.readout_opens + self.steps

    @property
    def last_step(self) -> int:
        """The step in which the last window closes: the latency, unless nothing reads the deepest layer."""
        return max([self.latency, *(opens + self.steps for opens in self.opens.values())])


def windows(network: SpikingNetwork, steps: int) -> Windows:
    """The windows of a network that fires layer after layer, for `steps` time-steps.

    A layer with d spiking layers before it on its longest path fires in the steps on + 1 .. on + T with

        on = (T - 1) (1 + d)

    It integrates the T steps up to on + 1, in which the last that it waits for fires. What comes by a shorter path, or
    the input itself, it has integrated before, so it is busy for T - 1 steps more for each layer that an edge skips:
    the next input may follow after 2T - 1 + (T - 1) r steps, where r is the largest number of layers skipped. The
    readout fires nothing, and is busy for T + (T - 1) r.

    Source: Liu et al., "SpikeConverter", AAAI 2022 (temporal separation); the silent period of arXiv 2408.17245.
    """
    # The first and the last of what reaches a node: how many windows lie before that in which it is sent.
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    opens: dict[str, int] = {}
    interval = steps
    for name in network.order:
        sources = network.predecessors[name]
        early = min((first[source] for source in sources), default=0)
        late = max((last[source] for source in sources), default=0)
        if name in network.neurons:
            opens[name] = (steps - 1) * (1 + late)
            interval = max(interval, 2 * steps - 1 + (steps - 1) * (late - early))
            early = late = late + 1
        elif name == network.output_name:
            interval = max(interval, steps + (steps - 1) * (late - early))
        first[name], last[name] = early, late
    return Windows(steps, opens, (steps - 1) * last[network.output_name], interval)


def over_window(node: nir.NIRNode, steps: int, dtype: DTypeLike = np.float32) -> nir.NIRNode:
    """The node that makes of a sum over T steps what `node` makes of each: its bias counts T times.

    Args:
        node: Any node that is not a neuron.
        steps: T.
        dtype: In which T times the bias is computed and kept.
    """
    bias, field = bias_of(node), facts(node).bias
    if bias is None or field is None or steps == 1:
        return node
    return with_attributes(node, **{field: bias.astype(dtype) * np.asarray(steps, dtype)})
