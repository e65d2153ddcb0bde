"""The larger, or smaller, of two values entry by entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cos_export.capturing.builder import Builder
from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray
from cos_export.capturing.values import Value, pack, ratio, vector

__all__ = ["larger"]


def larger(builder: Builder, name: str, value: Value, other: Value, direction: int) -> Value:
    """The larger of two values: max(a, b) = a + relu(b - a), min(a, b) = a - relu(a - b).

    The neurons' threshold is the most that the difference can be. Where both values have one scale, it is exact in
    whole spikes, as a pooling is; where they differ, it is rounded to a T-th of the threshold.

    Args:
        builder: Gets the neurons.
        name: What they are called after.
        value: Each channel a spike count times a number that is not negative.
        other: Likewise, of the same shape.
        direction: 1 for the larger, -1 for the smaller.

    Raises:
        Unsupported: A value is another one.
    """
    if builder.is_unknown(value) or builder.is_unknown(other):
        return builder.unknown(value.shape)
    pairs = [(count, term) for each in (value, other) for count, term in builder.counts.of(each)]
    if any(vector(term.scale, 1 if isinstance(term.scale, float) else term.channels).min() < 0 for _, term in pairs):
        raise Unsupported(
            "it compares values that were multiplied by a negative number",
            "multiply after it, or take the other extreme",
        )
    levels = {count.levels for count, _ in pairs}
    most = [_most(builder, each) for each in (value, other)]
    bound = np.where(most[direction > 0] > 0, most[direction > 0], 1.0)
    current = _divided(other.times(direction), bound).plus(_divided(value.times(-direction), bound))
    _, excess = builder.neurons(
        f"{name}_excess",
        current,
        1.0,
        levels.pop() if len(levels) == 1 and bool((most[0] == most[1]).all()) else None,
        unbounded=any(count.unbounded for count, _ in pairs),
    )
    result = value.plus(_divided(excess.times(direction), 1.0 / bound))
    alike = value.pending().keys() == other.pending().keys()
    if alike and len(pairs) == 2:
        sources = (*pairs[0][0].sources, excess.terms[0].source)
        builder.counts.add(replace(pairs[0][0], sources=sources, current=None))
    return result


def _most(builder: Builder, value: Value) -> DoubleArray:
    """What each channel can be at most, (channels,)."""
    most = np.zeros(value.channels)
    for _, term in builder.counts.of(value):
        most += np.where(term.picks() >= 0, vector(term.scale, value.channels), 0.0)
    return most


def _divided(value: Value, divisors: DoubleArray) -> Value:
    """Each channel divided by a number."""
    terms = [replace(t, scale=ratio(t.scale, pack(divisors), value.channels)) for t in value.terms]
    return replace(value, terms=tuple(terms))
