"""Which wires are spike counts: what adds up to whole numbers of spikes from 0 to T in T steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.values import Term, Value
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
    """

    sources: tuple[str, ...]
    sizes: Shape
    levels: int | None
    unbounded: bool


class SpikeCounts:
    """All spike counts of a graph."""

    def __init__(self) -> None:
        self._known: dict[frozenset[str], SpikeCount] = {}

    def add(self, count: SpikeCount) -> None:
        """Notes one."""
        self._known[frozenset(count.sources)] = count

    def of(self, value: Value) -> list[tuple[SpikeCount, Term]]:
        """The spike counts that `value` is put together from, no two of them in one channel.

        Returns:
            Each with what is done to it: a term without a source.

        Raises:
            Unsupported: It is not put together from spike counts, or adds them up.
        """
        sources: dict[Term, list[str]] = {}
        for term in value.terms:
            sources.setdefault(replace(term, source=""), []).append(term.source)
        found, taken = [], np.zeros(value.channels, np.int64)
        for term, names in sources.items():
            count = self._known.get(frozenset(names))
            if count is None:
                raise Unsupported(*(_SUM if all(self._in_one(name) for name in names) else _ANALOG))
            found.append((count, term))
            taken += term.picks() >= 0
        if (taken > 1).any():
            raise Unsupported(*_SUM)
        return found

    def _in_one(self, name: str) -> bool:
        return any(name in sources for sources in self._known)


_SUM = (
    "it takes the maximum of a sum of spikes of several layers, which has no spike count of its own",
    "put an activation (nn.ReLU, cos_export.QCFS) between the sum and it",
)
_ANALOG = (
    "it takes the maximum of numbers that are not spikes: no activation is directly before or after it",
    "put an activation (nn.ReLU, cos_export.QCFS) directly before or after it",
)
