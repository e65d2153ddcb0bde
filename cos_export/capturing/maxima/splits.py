"""How the maximum over a window is made of maxima over shorter ones, with the fewest neurons.

A window of k entries is covered by one of a entries at its start and one of b at its end. They may overlap, for the
maximum does not mind. If a = b, both may be windows of one and the same population, on a finer grid:

    max(x[i .. i+4]) = max(m[i], m[i+2])    with    m[i] = max(x[i .. i+2])
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

__all__ = ["Grid", "Split", "best_split", "neurons_along"]

_SEARCHED = 32
"""Windows up to this length try every split, longer ones two halves."""


@dataclass(frozen=True)
class Grid:
    """Where windows start along one axis: at first, first + step, ...

    Attributes:
        first: The first start; negative in the padding.
        step: The distance of two starts, at least 1.
        count: How many there are.
    """

    first: int
    step: int
    count: int

    def refined(self, distance: int) -> Grid:
        """The coarsest grid that holds this one and the same moved by `distance`."""
        step = gcd(self.step, distance) if self.count > 1 else distance
        return Grid(self.first, step, (self.step * (self.count - 1) + distance) // step + 1)

    def moved(self, distance: int) -> Grid:
        """The same grid elsewhere."""
        return Grid(self.first + distance, self.step, self.count)


@dataclass(frozen=True)
class Split:
    """A window of two shorter ones.

    Attributes:
        start: The length of the one at its start.
        end: The length of the one at its end.
        shared: Whether both are of one population.
    """

    start: int
    end: int
    shared: bool


def best_split(length: int, grid: Grid, dilation: int) -> Split:
    """The split of a window of at least two entries that takes the fewest neurons among those of the least depth.

    Args:
        length: Entries of the window.
        grid: Where windows start.
        dilation: The distance of two entries of one.
    """
    return _best(length, grid.step, grid.count, dilation)[1]


def neurons_along(length: int, grid: Grid, dilation: int) -> int:
    """The neurons that the maxima of all windows along one axis take, for one channel and one line of the others."""
    return 0 if length == 1 else _best(length, grid.step, grid.count, dilation)[0]


@lru_cache(maxsize=65536)
def _best(length: int, step: int, count: int, dilation: int) -> tuple[int, Split]:
    half = -(-length // 2)
    # Each half a power of two at most: the tree is as flat as it can be.
    longest = min(1 << ((length - 1).bit_length() - 1), length - 1)
    grid = Grid(0, step, count)
    found: list[tuple[int, Split]] = []
    for start in range(half, longest + 1 if length <= _SEARCHED else half + 1):
        apart = neurons_along(start, grid, dilation) + neurons_along(length - start, grid, dilation)
        shared = neurons_along(start, grid.refined(dilation * (length - start)), dilation)
        found += [(shared, Split(start, start, True)), (apart, Split(start, length - start, False))]
    cost, split = min(found, key=lambda entry: entry[0])
    return count + cost, split
