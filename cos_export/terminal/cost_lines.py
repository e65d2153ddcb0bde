"""What one image costs, in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cos_export.accuracy import AccuracyRow

__all__ = ["COST_CAPTION", "cost_lines", "cost_rows", "rounded"]

COST_CAPTION = "steps: until the readout; ops: synaptic operations per image"


def rounded(count: float) -> str:
    """A count in three digits, such as 31.6M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return f"{count:.0f}"


def cost_rows(row: AccuracyRow, at: Sequence[int]) -> list[tuple[str, ...]]:
    """What stands below the accuracies of a method, at the steps `at`: latencies and operations, each with its name."""
    return [
        ("  steps", *(f"{row.latency[t]:,}" for t in at)),
        ("  ops", *(rounded(row.synaptic_operations[t]) for t in at)),
    ]


def cost_lines(costs: Mapping[str, Any]) -> list[str]:
    """The costs of a deployment in words.

    Args:
        costs: `Costs.to_dict()`.
    """
    time, done, other = costs["timing"], costs["operations"], costs["artificial"]
    before = f" ({rounded(done['presimulation'])} before the run)" if done["presimulation"] else ""
    return [
        f"One image, {costs['schedule']}: readout after {time['latency']:,} steps "
        f"({time['latency_with_hops']:,} with one per synapse),",
        f"next image after {time['interval']:,}; {rounded(done['spikes'])} spikes, "
        f"{rounded(done['synaptic_operations'])} synaptic operations{before}.",
        f"Artificial network, {other['activation_bits']} bits: {rounded(other['macs'])} multiply-accumulates, "
        f"{rounded(other['effective_macs'])} without zeros.",
    ]
