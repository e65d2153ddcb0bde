"""The symbolic value that the walk carries along each edge of a module's graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from cos_export.network.graph import Shape

__all__ = ["Scale", "Term", "Value", "pack", "ratio", "vector"]

Scale = float | tuple[float, ...]
"""One factor for all channels, or one for each. A tuple, so that terms can be compared and hashed."""


def vector(scale: Scale, channels: int) -> NDArray[np.float64]:
    """`scale` with one entry for each channel: (channels,)."""
    return np.broadcast_to(np.asarray(scale, np.float64), (channels,))


def pack(factors: NDArray[np.float64]) -> Scale:
    """The `Scale` of one factor for each channel: a single number where all are equal."""
    first = float(factors[0])
    return first if bool((factors == first).all()) else tuple(factors.tolist())


def ratio(scale: Scale, divisor: Scale, channels: int) -> Scale:
    """Scale / divisor, channel by channel."""
    return pack(vector(scale, channels) / vector(divisor, channels))


@dataclass(frozen=True)
class Term:
    """What the NIR node `source` puts on its wire, with its channels placed and scaled.

        term[c] = scale[c] * source[index[c]]      0 where index[c] = -1

    The scale is pending: a spiking node sends unit spikes, and its threshold, like the 1/k^2 of an average
    pooling, waits here until a synapse takes it into its weights. So do a concatenation, a slice and a shuffle
    of channels.

    Attributes:
        source: A node of the graph.
        width: How many channels (or features) it has.
        scale: One factor, or one for each channel of the term.
        index: The source's channel for each channel of the term, -1 for none; None if they are the same.
    """

    source: str
    width: int
    scale: Scale = 1.0
    index: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        """How many channels the term has."""
        return self.width if self.index is None else len(self.index)

    @property
    def plain(self) -> bool:
        """Whether it is the source's wire and nothing else."""
        return self.scale == 1.0 and self.index is None

    def picks(self) -> NDArray[np.int64]:
        """`index`, spelled out: (channels,)."""
        return np.arange(self.width) if self.index is None else np.asarray(self.index, np.int64)

    @property
    def reads(self) -> tuple[int, ...] | None:
        """The source's channels that are in it, in ascending order, or None for all."""
        if self.index is None:
            return None
        used = tuple(sorted({pick for pick in self.index if pick >= 0}))
        return None if len(used) == self.width else used

    def times(self, factor: float) -> Term:
        """The term multiplied by a number."""
        scale = self.scale
        return replace(self, scale=scale * factor if isinstance(scale, float) else tuple(s * factor for s in scale))

    def spread(self, count: int) -> Term:
        """The term after a flatten that turns each channel into `count` neighbouring ones."""
        scale = self.scale if isinstance(self.scale, float) else tuple(np.repeat(self.scale, count).tolist())
        if self.index is None:
            return replace(self, width=self.width * count, scale=scale)
        picks = np.repeat(self.picks(), count)
        spread = np.where(picks < 0, -1, picks * count + np.tile(np.arange(count), len(self.index)))
        return Term(self.source, self.width * count, scale, tuple(spread.tolist()))


def _term(source: str, width: int, factors: NDArray[np.float64], picks: NDArray[np.int64]) -> Term:
    """A term in its simplest form, so that equal ones are found equal."""
    used = picks >= 0
    factors = np.where(used, factors, factors[used][0])
    identity = len(picks) == width and bool((picks == np.arange(width)).all())
    return Term(source, width, pack(factors), None if identity else tuple(picks.tolist()))


def _merged(old: Term, new: Term) -> Term | None:
    """The sum of two terms of one source as one term, or None if it takes two."""
    n = old.channels
    if old.index == new.index:
        if isinstance(old.scale, float) and isinstance(new.scale, float):
            return replace(old, scale=old.scale + new.scale)
        return replace(old, scale=pack(vector(old.scale, n) + vector(new.scale, n)))
    left, right = old.picks(), new.picks()
    if bool(((left >= 0) & (right >= 0)).any()):
        return None
    factors = np.where(left >= 0, vector(old.scale, n), vector(new.scale, n))
    return _term(old.source, old.width, factors, np.where(left >= 0, left, right))


@dataclass(frozen=True)
class Value:
    """A tensor of the module, without its batch axis: the sum of some terms with equally many channels.

    Attributes:
        shape: (channels, height, width), (channels, length) or (features,).
        terms: What it is the sum of.
        split: Over how many leading axes the channels are spread: 2 between the two reshapes of a channel
            shuffle, else 1.
        order: Which of (channels, height, width) each axis of `shape` is, where a permutation has moved the channels
            behind others; None if it is as it was. `base` has the shape in which they come first.
        lost: True after an operation that cannot be converted and whose result has no batch axis to go on from.
    """

    shape: Shape
    terms: tuple[Term, ...]
    split: int = 1
    lost: bool = False
    order: tuple[int, ...] | None = None

    @property
    def base(self) -> Value:
        """The value with its channels in front again."""
        if self.order is None:
            return self
        shape = tuple(self.shape[self.order.index(axis)] for axis in range(len(self.order)))
        return replace(self, shape=shape, order=None)

    def permuted(self, order: Sequence[int]) -> Value:
        """The value with axis `order[i]` of its shape as axis i."""
        before = self.order or tuple(range(len(self.shape)))
        moved = tuple(before[axis] for axis in order)
        same = moved == tuple(range(len(moved)))
        return replace(self, shape=tuple(self.shape[axis] for axis in order), order=None if same else moved)

    @property
    def channels(self) -> int:
        """The number of channels, or of features."""
        return prod(self.shape[: self.split])

    @property
    def spatial(self) -> Shape:
        """The axes behind the channels."""
        return self.shape[self.split :]

    def of(self, terms: Iterable[Term]) -> Value:
        """A value of the same shape whose terms with the same source are added: NIR has no edge twice."""
        kept: list[Term] = []
        for term in terms:
            for i, other in enumerate(kept):
                merged = _merged(other, term) if other.source == term.source else None
                if merged is not None:
                    kept[i] = merged
                    break
            else:
                kept.append(term)
        return replace(self, terms=tuple(kept))

    def pending(self) -> dict[Term, list[str]]:
        """What is pending, each as a term without a source, and the sources that it is pending on."""
        alike: dict[Term, list[str]] = {}
        for term in self.terms:
            alike.setdefault(replace(term, source=""), []).append(term.source)
        return alike

    def times(self, factor: float) -> Value:
        """The value multiplied by a number."""
        return replace(self, terms=tuple(term.times(factor) for term in self.terms))

    def scaled(self, factors: NDArray[np.float64]) -> Value:
        """The value with each channel multiplied by a number: (channels,)."""
        terms = (replace(term, scale=pack(vector(term.scale, self.channels) * factors)) for term in self.terms)
        return replace(self, terms=tuple(terms))

    def plus(self, other: Value) -> Value:
        """The sum of two values of equal shape."""
        return self.of((*self.terms, *other.terms))

    def gathered(self, picks: Sequence[int], shape: Shape, split: int = 1) -> Value:
        """The value of `shape` whose channel c is this one's channel picks[c]; -1 makes a channel of zeros.

        A slice, a permutation and a part of a concatenation are all of this kind.
        """
        chosen = np.asarray(picks, np.int64)
        terms = []
        for term in self.terms:
            own = np.where(chosen < 0, -1, term.picks()[chosen])
            if bool((own >= 0).any()):
                terms.append(_term(term.source, term.width, vector(term.scale, self.channels)[chosen], own))
        return Value(shape, (), split).of(terms)

    @staticmethod
    def joined(values: Sequence[Value], shape: Shape) -> Value:
        """The concatenation of values along their channels."""
        total, first = shape[0], 0
        terms: list[Term] = []
        for value in values:
            picks = np.full(total, -1)
            picks[first : first + value.channels] = np.arange(value.channels)
            terms += value.gathered(picks.tolist(), shape).terms
            first += value.channels
        return Value(shape, ()).of(terms)
