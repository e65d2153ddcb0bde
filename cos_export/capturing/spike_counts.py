"""Which wires are spike counts: what adds up to whole numbers of spikes from 0 to T in T steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.values import Term, Value, vector
from cos_export.network.graph import Shape

__all__ = ["SpikeCount", "SpikeCounts"]


@dataclass(frozen=True)
class SpikeCount:
    """Nodes that send a spike count together: a spiking layer alone, or what a max pooling gave.

    Attributes:
        sources: The nodes, whose outputs are added.
        sizes: Of the axes behind the channels.
        levels: L of the quantised activation that it comes from, or None if that was a clipped ReLU.
        unbounded: Whether that was a ReLU without an upper bound.
        current: What the layer takes, or None for what a max pooling gave.
    """

    sources: tuple[str, ...]
    sizes: Shape
    levels: int | None
    unbounded: bool
    current: Value | None = None


class SpikeCounts:
    """All spike counts of a graph."""

    def __init__(self) -> None:
        self._known: dict[frozenset[str], SpikeCount] = {}

    def add(self, count: SpikeCount) -> None:
        """Notes one."""
        self._known[frozenset(count.sources)] = count

    def holds(self, sources: Sequence[str]) -> bool:
        """Whether these nodes send a spike count together."""
        return frozenset(sources) in self._known

    def of(self, value: Value) -> list[tuple[SpikeCount, Term]]:
        """The spike counts that `value` is put together from.

        In one channel is one of them, or the two of an activation with a negative side, of which one is silent where
        the other fires: relu(z) with a factor above 0 and relu(-z) with one below 0.

        Returns:
            Each with what is done to it: a term without a source.

        Raises:
            Unsupported: It is not put together from spike counts, or adds them up.
        """
        found = []
        for term, names in value.pending().items():
            count = self._known.get(frozenset(names))
            if count is None:
                raise Unsupported(*(_SUM if all(self._in_one(name) for name in names) else _ANALOG))
            found.append((count, term))
        for pair in combinations(found, 2):
            if _meet(*pair) and not _two_sides(*pair):
                raise Unsupported(*_SUM)
        return found

    def _in_one(self, name: str) -> bool:
        return any(name in sources for sources in self._known)


def _meet(one: tuple[SpikeCount, Term], other: tuple[SpikeCount, Term]) -> bool:
    """Whether both are in some channel."""
    return bool(((one[1].picks() >= 0) & (other[1].picks() >= 0)).any())


def _two_sides(one: tuple[SpikeCount, Term], other: tuple[SpikeCount, Term]) -> bool:
    """Whether they are relu(z) and relu(-z) with factors of opposite signs, which a maximum may take one by one."""
    (count, term), (other_count, other_term) = one, other
    if count.current is None or other_count.current is None or term.index != other_term.index:
        return False
    factors = vector(term.scale, term.channels) * vector(other_term.scale, term.channels)
    return other_count.current == count.current.times(-1.0) and bool((factors <= 0).all())


_SUM = (
    "it takes the maximum of a sum of spikes of several layers, which has no spike count of its own",
    "put an activation (nn.ReLU, cos_export.QCFS) between the sum and it",
)
_ANALOG = (
    "it takes the maximum of numbers that are not spikes: no activation is directly before or after it",
    "put an activation (nn.ReLU, cos_export.QCFS) directly before or after it",
)
