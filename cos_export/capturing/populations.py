"""Populations of neurons of which some channels go one way and the others another, as several.

A synapse that reads half of a wire has weights of 0 for the other half. Where channels are cut into parts time and
again, as between the units of a ShuffleNetV2, most weights would be such. With the channels that the same synapses
read as a population of their own, whose synapses are the rows of those of the whole, each weight is one of the
module's.
"""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.capturing.synapse import Synapse
from cos_export.capturing.unfinished_graph import UnfinishedGraph
from cos_export.network import NeuronSpec

__all__ = ["split_by_readers"]

Channels = NDArray[np.int64]


def split_by_readers(graph: UnfinishedGraph, neurons: dict[str, NeuronSpec], unbounded: set[str]) -> set[str]:
    """Splits populations by the synapses that read their channels, in place.

    One is split where each of its readers is a synapse without groups that reads nothing else, and each of its sources
    one that nothing else reads.

    Args:
        graph: A closed graph.
        neurons: Its populations, in which parts take the place of the whole.
        unbounded: Those that stand for a ReLU without an upper bound.

    Returns:
        Parts of those.
    """
    added: set[str] = set()
    for name in list(neurons):
        parts = _parts(graph, name, len(neurons[name].threshold))
        if len(parts) > 1:
            spec = neurons.pop(name)
            names = _split(graph, name, spec, parts)
            neurons |= {own: _spec(spec, part) for own, part in zip(names, parts, strict=True)}
            added |= set(names) if name in unbounded else set()
    return added


def _parts(graph: UnfinishedGraph, name: str, channels: int) -> list[Channels]:
    """The channels by the readers that read them; all in one where the population stays whole."""
    readers = [graph.synapse(reader) for reader in graph.readers_of(name)]
    apart = [graph.sources_of(reader) == [name] for reader in graph.readers_of(name)]
    sources = [graph.synapse(source) for source in graph.sources_of(name)]
    alone = [graph.readers_of(source) == [name] for source in graph.sources_of(name)]
    if not all((*apart, *alone)) or any(node is None or node.groups > 1 for node in (*readers, *sources)):
        return [np.arange(channels)]
    used = np.ones((channels, len(readers)), bool)
    for number, reader in enumerate(readers):
        if reader is not None and reader.reads is not None:
            used[:, number] = np.isin(np.arange(channels), reader.reads)
    # What no synapse reads stays with what some do.
    kinds, kind = np.unique(used, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    if len(kinds) > 1 and not kinds[0].any():
        kind = np.maximum(kind, 1)
    return [np.flatnonzero(kind == number) for number in np.unique(kind)]


def _split(graph: UnfinishedGraph, name: str, spec: NeuronSpec, parts: list[Channels]) -> list[str]:
    sources = graph.sources_of(name)
    rows: list[list[str]] = [[] for _ in parts]
    for source in sources:
        synapse, before = graph.synapse(source), graph.sources_of(source)
        if synapse is None:
            continue
        names = graph.replaced(source, [(_rows(synapse, part), before) for part in parts])
        for own, part in zip(rows, names, strict=True):
            own.append(part)
    readers = graph.readers_of(name)
    names = graph.replaced(name, [(_neurons(spec, part), own) for part, own in zip(parts, rows, strict=True)])
    for reader in readers:
        synapse = graph.synapse(reader)
        if synapse is None:
            continue
        columns = [
            (_columns(synapse, part), [own])
            for part, own in zip(parts, names, strict=True)
            if synapse.reads is None or np.isin(part, synapse.reads).any()
        ]
        for later, _ in columns[1:]:
            later.bias = np.zeros_like(later.bias)
        graph.replaced(reader, columns)
    return names


def _rows(synapse: Synapse, part: Channels) -> Synapse:
    shape = (len(part), *synapse.output_shape[1:])
    return replace(synapse, weight=synapse.weight[part], bias=synapse.bias[part], output_shape=shape)


def _columns(synapse: Synapse, part: Channels) -> Synapse:
    shape = (len(part), *synapse.input_shape[1:])
    return replace(synapse, weight=synapse.weight[:, part], input_shape=shape, reads=None)


def _spec(spec: NeuronSpec, part: Channels) -> NeuronSpec:
    return replace(spec, threshold=spec.threshold[part], v_init=spec.v_init[part])


def _neurons(spec: NeuronSpec, part: Channels) -> nir.IF:
    theta = spec.threshold[part]
    return nir.IF(r=np.ones_like(theta), v_threshold=theta, v_reset=np.zeros_like(theta))
