"""Carries out what is pending on wires where nothing takes it into its weights, by synapses that do nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.capturing.folding import DoubleArray, apply_gain
from cos_export.capturing.grouping import Grouping, grouping_of
from cos_export.capturing.spike_counts import SpikeCounts
from cos_export.capturing.synapse import (
    Synapse,
    carrier,
    check_finite,
    check_finite_weights,
    pays_depthwise,
    set_types,
)
from cos_export.capturing.unfinished_graph import UnfinishedGraph
from cos_export.capturing.values import Term, Value, ratio, vector
from cos_export.network.graph import Shape

__all__ = ["Carriers"]


class Carriers:
    """The carriers of a graph: of what is pending on one wire there is one, however many take it.

    Args:
        graph: The graph so far, which they are added to.
        counts: What sends spike counts.
    """

    def __init__(self, graph: UnfinishedGraph, counts: SpikeCounts) -> None:
        self._graph = graph
        self._counts = counts
        self._carriers: dict[tuple[Term, tuple[str, ...]], str] = {}
        self._copies: dict[Term, str] = {}
        self._currents: dict[tuple[Term, ...], tuple[list[str], NDArray[np.int64]]] = {}

    def parts(self, value: Value) -> list[tuple[list[str], Term]]:
        """The wires that make up `value`, those together that one synapse can take: (sources, what to do to them).

        Whole wires share a synapse; those of a rarer scale get a 1x1 synapse before it that evens it out.
        """
        whole = [term for term in value.terms if term.index is None]
        parts: dict[Term, list[str]] = {}
        if whole:
            count = Counter(term.scale for term in whole)
            # Of equally frequent scales none at all: what a carrier makes of a spike has other readers, too.
            common = max(count, key=lambda scale: (count[scale], scale == 1.0))
            # What is added to nothing at all cannot be brought to that scale.
            if not vector(common, value.channels).all() and any(term.scale != common for term in whole):
                common = 1.0
            parts[Term("", value.channels, common)] = [
                term.source
                if term.scale == common
                else self._carried(replace(term, scale=ratio(term.scale, common, value.channels)), value.shape)
                for term in whole
            ]
        placed = replace(value, terms=tuple(term for term in value.terms if term.index is not None))
        return [(sources, term) for term, sources in (parts | placed.pending()).items()]

    def unit_sources(self, value: Value) -> list[str]:
        """Nodes whose sum is `value`, with nothing pending."""
        names: list[str] = []
        for term, sources in value.pending().items():
            if term.plain:
                names += sources
            elif self._counts.holds(sources):
                names.append(self._carried(replace(term, source=sources[0]), value.shape, sources))
            else:
                # Apart, for others may read some of them alone.
                names += [self._carried(replace(term, source=source), value.shape) for source in sources]
        return names

    def on_one_wire(self, value: Value) -> tuple[list[str], NDArray[np.int64]]:
        """Nodes whose sum is `value` with its channels in another order, and where in that each channel is.

        Of a current that neurons take already, the negative is that current through a synapse of -1 for each channel
        where that has fewer weights than copies of the synapses that it comes from.
        """
        opposite = self._currents.get(value.times(-1.0).terms)
        if opposite is not None:
            names, places = opposite
            mirror = carrier(Term("", value.channels, -1.0), value.shape)
            if mirror.weight.size < sum(self._weights_of_copy(term) for term in value.terms):
                return [self._graph.add(f"{names[0]}_negated", mirror, names)], places
        names, places = self._together(value)
        self._currents.setdefault(value.terms, (names, places))
        return names, places

    def _together(self, value: Value) -> tuple[list[str], NDArray[np.int64]]:
        places = _common_places(value)
        if places is None and pays_depthwise(value.shape) and any(term.index is not None for term in value.terms):
            grouping = grouping_of(value)
            if grouping is not None:
                ones = np.ones(value.channels)
                _, value = self.grouped(f"{value.terms[0].source}_placed", value, ones, 0 * ones, grouping)
                places = _common_places(value)
        if places is None:
            value = replace(value, terms=tuple(self._copied(term) for term in value.terms))
            return self.unit_sources(value), np.arange(value.channels)
        return [term.source for term in value.terms], places

    def grouped(
        self, preferred: str, value: Value, gain: DoubleArray, offset: DoubleArray, grouping: Grouping
    ) -> tuple[tuple[str, ...], Value]:
        """Adds a grouped synapse for each part of a join, which brings all onto one wire, group by group.

        Args:
            preferred: The name to give it.
            value: The join.
            gain: What each channel is multiplied by.
            offset: What is added to it then.
            grouping: Of the join.

        Returns:
            The nodes' names, and what they give together.
        """
        names: list[str] = []
        for term in value.terms:
            weight, bias = grouping.weight(term, gain), offset[grouping.order] if not names else np.zeros_like(offset)
            axes = len(value.spatial)
            synapse = Synapse(
                weight.reshape(*weight.shape, *[1] * axes),
                bias,
                (term.width, *value.spatial),
                value.shape,
                (1,) * axes,
                (0,) * axes,
                (1,) * axes,
                grouping.groups,
            )
            check_finite(synapse)
            names.append(self._graph.add(preferred, synapse, [term.source]))
        index = tuple(np.argsort(grouping.order).tolist())
        return tuple(names), Value(value.shape, tuple(Term(name, value.channels, 1.0, index) for name in names))

    def by_place(self, preferred: str, value: Value, gain: DoubleArray) -> tuple[str, Value]:
        """Adds what multiplies each place of each channel by its entry of `gain`, of the shape of `value`: `nir.Scale`.

        Raises:
            Unsupported: A factor is not a finite float32 number.
        """
        if any(term.index is not None for term in value.terms):
            value = Value(value.shape, tuple(Term(name, value.channels) for name in self.unit_sources(value)))
        names = []
        for sources, term in self.parts(value):
            pending = vector(term.scale, value.channels).reshape(-1, *[1] * (len(value.shape) - 1))
            check_finite_weights(gain * pending)
            node = nir.Scale((gain * pending).astype(np.float32))
            set_types(node, value.shape, value.shape)
            names.append(self._graph.add(preferred, node, sources))
        return names[0], Value(value.shape, tuple(Term(name, value.channels) for name in names))

    def _copied(self, term: Term) -> Term:
        """A term of a synapse as one of a copy of it that has taken the pending scale into its weights.

        So neurons hear a current and its negative straight from spikes, with no synapse between two synapses: integers
        have no finer scale for what lies between them.
        """
        original = self._graph.synapse(term.source)
        if term.plain or term.index is not None or original is None:
            return term
        if term not in self._copies:
            gain = np.array(vector(term.scale, term.channels))
            copy = replace(original)
            copy.weight, copy.bias = apply_gain(original.weight, original.bias, gain, np.zeros_like(gain))
            check_finite(copy)
            self._copies[term] = self._graph.add(f"{term.source}_scaled", copy, self._graph.sources_of(term.source))
        return Term(self._copies[term], term.width)

    def _weights_of_copy(self, term: Term) -> int:
        original = self._graph.synapse(term.source)
        return 0 if original is None or term.index is not None else original.weight.size

    def _carried(self, term: Term, shape: Shape, sources: Sequence[str] = ()) -> str:
        """The synapse that carries what is pending where nothing else can, such as a residual's identity path.

        Args:
            term: What is pending, on the first of its sources.
            shape: Of the value.
            sources: All of them, if there are several that only come together.
        """
        key = (term, tuple(sources) or (term.source,))
        if key not in self._carriers:
            synapse = carrier(term, shape)
            check_finite(synapse)
            suffix = "scaled" if term.index is None else "placed"
            self._carriers[key] = self._graph.add(f"{term.source}_{suffix}", synapse, key[1])
        return self._carriers[key]


def _common_places(value: Value) -> NDArray[np.int64] | None:
    """Where each channel is on wires that are added, if nothing but one order for all of them is pending; else None."""
    first = value.terms[0]
    alike = all(term.scale == 1.0 and term.index == first.index for term in value.terms)
    places = first.picks()
    return places if alike and np.array_equal(np.sort(places), np.arange(first.width)) else None
