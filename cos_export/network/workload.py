"""How much there is to compute, for time limits: a bound of the work, and not a count of what fires."""

from __future__ import annotations

import numpy as np

from cos_export.network.node_facts import facts
from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["multiply_accumulates"]


def multiply_accumulates(network: SpikingNetwork) -> int:
    """Multiplications that one sample needs for one step if everything fires, each synapse counted once."""
    total = 0
    for name in network.order:
        total += max(1, facts(network.graph.nodes[name]).terms) * int(np.prod(network.shapes[name]))
    return total
