"""The states that a per-sample method sets, beside those that the reference sets for the same samples."""

from __future__ import annotations

import numpy as np

from cos_export.network import SampleStates, SpikingNetwork
from cos_export.simulation.sample_parts import blocks

__all__ = ["FEW", "compared_states"]

FEW = 8
"""States of a few samples that another runtime may set otherwise in float32."""

_FLIPPED = 0.02
"""The share of a layer's states that rounding may change in float32. It changes a spike, and through that states of
what follows: 0.3 % of a layer of ResNet-20 at most (16 images, weights off by 1.5 units of rounding)."""

_SAME = 1e-3
"""How far, in thresholds, a state may be off that rounding has left as it was: a spike more or less moves it by 1."""


def compared_states(
    network: SpikingNetwork, actual: SampleStates, expected: SampleStates, *, few: int = 0
) -> tuple[int, str]:
    """How many states differ, and a sentence if that is more than rounding explains, or "".

    Args:
        network: What was run. In one of integers no state may differ.
        actual: What was set.
        expected: What the reference sets.
        few: How many may differ in float32, in however small a network, where it was computed by another runtime: one
            flip near a threshold changes what follows.
    """
    total, worst = 0, (0.0, "", "")
    for kind, states, reference in (
        ("initial potentials", actual.v_init, expected.v_init),
        ("silent neurons", actual.silent, expected.silent),
    ):
        for name in network.layers:
            if name not in states and name not in reference:
                continue
            if name not in states or name not in reference:
                return total, f"the {kind} of {name!r} are missing, or nobody sets them."
            rounded = network.quantisation is None and kind == "initial potentials"
            one, other, differing = states[name], reference[name], 0
            if one.shape != other.shape:
                return total, f"the {kind} of {name!r} have shape {one.shape}, and {other.shape} was expected."
            for part in blocks(len(one), one[0].nbytes):
                differs = np.not_equal(one[part], other[part])
                if rounded:
                    differs = np.abs(one[part] - other[part]) > _SAME * network.neurons[name].threshold
                differing += int(differs.sum())
            total += differing
            worst = max(worst, (differing / one.size, name, kind))
    share, name, kind = worst
    if share <= (0.0 if network.quantisation is not None else _FLIPPED) or (
        network.quantisation is None and total <= few
    ):
        return total, ""
    return total, f"{total:,} differ, of {name!r} {100 * share:.2g} % of the {kind}."
