"""How much there is to compute and to hold: bounds for limits of time and of memory, and not counts of what fires."""

from __future__ import annotations

import math

import numpy as np
import torch

from cos_export.network.node_facts import facts
from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["multiply_accumulates", "samples_at_once"]

_HELD = 2**26
"""Numbers in the train of the largest layer: 256 MiB of float32, of which a run holds a few at once."""


def multiply_accumulates(network: SpikingNetwork) -> int:
    """Multiplications that one sample needs for one step if everything fires, each synapse counted once."""
    total = 0
    for name in network.order:
        total += max(1, facts(network.graph.nodes[name]).terms) * int(np.prod(network.shapes[name]))
    return total


def samples_at_once(network: SpikingNetwork, steps: int, most: int, device: torch.device | str = "cpu") -> int:
    """Samples that are computed together: `most`, or on a CPU fewer, where their largest layer is so large.

    Fewer are a power of two, so that where processes share the batches of 64, each batch holds the same samples.
    A GPU has memory of its own, and whoever names a batch size for it knows how much. On a CPU a layer of more than
    256 MiB is no faster than several smaller ones.

    Args:
        network: What runs.
        steps: The steps of a layer that are held together: T, or 1 of what is held as the sum over a window.
        most: The batch size that was asked for.
        device: Where it runs.
    """
    if torch.device(device).type != "cpu":
        return most
    largest = max(math.prod(shape) for shape in network.shapes.values())
    fitting = _HELD // max(1, largest * steps)
    return most if most <= fitting else 1 << max(0, fitting.bit_length() - 1)
