"""The order in which the channels of a join lie in groups, so that a grouped synapse brings each part to its place.

Parts of 24, 12 and 12 channels have 12 groups of 2, 1 and 1: with the channels of the join in the order of their
groups, each part is read by a convolution of 12 groups, with a twelfth of the weights of a dense one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from cos_export.capturing.values import Term, Value, vector

__all__ = ["Grouping", "grouping_of"]


@dataclass(frozen=True)
class Grouping:
    """Groups of channels that all parts of a join have in common.

    Attributes:
        groups: How many.
        order: The join's channels, group by group: (channels,).
    """

    groups: int
    order: NDArray[np.int64]

    def weight(self, term: Term, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weight of a grouped synapse that reads a part, and gives the channels in this order.

        Args:
            term: The part.
            gain: Of each channel of the join.

        Returns:
            (channels, channels of the part / groups).
        """
        size = term.width // self.groups
        weight = np.zeros((len(self.order), size))
        picks = term.picks()[self.order]
        used = np.flatnonzero(picks >= 0)
        factors = (vector(term.scale, term.channels) * gain)[self.order]
        weight[used, picks[used] % size] = factors[used]
        return weight


def grouping_of(value: Value) -> Grouping | None:
    """The finest grouping of a join, or None if its parts have no groups in common."""
    channels = value.channels
    common = gcd(channels, *(term.width for term in value.terms))
    for groups in range(common, 1, -1):
        if common % groups == 0:
            order = _order(value, groups)
            if order is not None:
                return Grouping(groups, order)
    return None


def _order(value: Value, groups: int) -> NDArray[np.int64] | None:
    """The channels group by group, None if the parts disagree on a channel or groups are not of one size."""
    group = np.full(value.channels, -1)
    for term in value.terms:
        picks = term.picks()
        used = picks >= 0
        own = picks[used] * groups // term.width
        known = group[used]
        if ((known >= 0) & (known != own)).any():
            return None
        group[used] = own
    room = value.channels // groups - np.bincount(group[group >= 0], minlength=groups)
    if (room < 0).any():
        return None
    # Channels of zeros go where there is room.
    group[group < 0] = np.repeat(np.arange(groups), room)
    return np.argsort(group, kind="stable")
