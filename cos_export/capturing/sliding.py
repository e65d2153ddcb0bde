"""How a kernel reads evenly spaced places of a map, where padding is the same on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sliding", "sliding"]


@dataclass(frozen=True)
class Sliding:
    """Along one axis: entry j of the kernel at position i reads the place stride * i + j - padding.

    Attributes:
        kernel: Its length.
        stride: The distance of neighbouring positions.
        padding: Zeros on both sides.
    """

    kernel: int
    stride: int
    padding: int

    def entry(self, first: int) -> int:
        """The entry that reads the place `first` at position 0."""
        return first + self.padding


def sliding(size: int, firsts: Sequence[int], step: int, count: int) -> Sliding:
    """The shortest kernel that reads the places first + step * i for i < count, and 0 outside of the map.

    Entries of weight 0 at its end make up for positions that the padding, which both sides have, would add.

    Args:
        size: Of the map along this axis.
        firsts: What is read at position 0; negative in the padding.
        step: The distance of what neighbouring positions read.
        count: How many positions there are.
    """
    padding = max(0, -min(firsts), max(firsts) + step * (count - 1) - (size - 1))
    total = size + 2 * padding
    # Of a single position no stride is ever taken, and one as long as the map leaves no room for a second.
    stride = step if count > 1 else total
    return Sliding(max(max(firsts) + padding + 1, total - stride * count + 1), stride, padding)
