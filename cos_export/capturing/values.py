"""The symbolic value that the walk carries along each edge of a module's graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cos_export.graph import Shape

__all__ = ["Term", "Value"]


@dataclass(frozen=True)
class Term:
    """`scale` times what the NIR node `source` puts on its wire.

    The scale is pending: a spiking node sends unit spikes, and its threshold, like the 1/k^2 of an average
    pooling, waits here until a synapse takes it into its weights.
    """

    source: str
    scale: float


@dataclass(frozen=True)
class Value:
    """A tensor of the module, without its batch axis: the sum of some terms of equal shape.

    Attributes:
        shape: (channels, height, width), (channels, length) or (features,).
        terms: What it is the sum of, each source once.
        lost: True after an operation that cannot be converted and whose result has no batch axis to go on from.
    """

    shape: Shape
    terms: tuple[Term, ...]
    lost: bool = False

    @staticmethod
    def of(shape: Shape, terms: Iterable[Term]) -> Value:
        """A value whose terms with the same source are added: NIR has no edge twice."""
        total: dict[str, float] = {}
        for term in terms:
            total[term.source] = total.get(term.source, 0.0) + term.scale
        return Value(shape, tuple(Term(source, scale) for source, scale in total.items()))

    def times(self, factor: float) -> Value:
        """The value multiplied by a number."""
        return Value(self.shape, tuple(Term(term.source, term.scale * factor) for term in self.terms))

    def plus(self, other: Value) -> Value:
        """The sum of two values of equal shape."""
        return Value.of(self.shape, (*self.terms, *other.terms))
