"""The nodes of a network as integers, group by group: each scale is decided, and then what has it is rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cos_export.network import FloatArray, NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.network.wiring import turns_sign
from cos_export.quantisation.counting import Scales
from cos_export.quantisation.fitting import fitted_synapse
from cos_export.quantisation.groups import Group, free_name
from cos_export.quantisation.inner_scales import base_channels, demands, inner_scale
from cos_export.quantisation.scales import (
    Rounding,
    best_scale,
    channel_thresholds,
    rounded_synapse,
)
from cos_export.quantisation.splitting import parts_allowed, split
from cos_export.simulation.fixed_point import half_integers

__all__ = ["IntegerNodes"]


@dataclass
class IntegerNodes:
    """What has been decided so far.

    Attributes:
        before: The network in float32.
        coding: Of its input, and of its readout once that is decided.
        rounding: Of weights and scales.
        per_channel: Whether channels may have scales of their own.
        ordered: The groups, each after those that its producers read.
        finest: The least scale of each node's input in which its sums fit, by channel.
    """

    before: SpikingNetwork
    coding: Quantisation
    rounding: Rounding
    per_channel: bool
    ordered: Sequence[Group]
    finest: Mapping[str, Scales]

    def __post_init__(self) -> None:
        self.nodes: dict[str, nir.NIRNode] = dict(self.before.graph.nodes)
        self.neurons: dict[str, NeuronSpec] = {}
        self.input_scales: dict[str, Scales] = {}
        self.edges = [(str(source), str(target)) for source, target in self.before.graph.edges]
        largest = self.rounding.largest_weight
        self.demands = demands(self.before, self.ordered, self.coding.input_scale, self.finest, largest)

    def quantise_group(self, number: int, inputs: Mapping[str, Tensor]) -> None:
        """Decides the scale of a group, and rounds what has it."""
        group, scale = self.ordered[number], np.ones(1)
        if group.producers:
            scale = self._inner_scale(number, inputs) if group.inner else self._scale(group, inputs)
        elif group.edges:
            scale = np.array([self.coding.input_scale if group.edges[0][0] == self.before.input_name else 1.0])
        nodes = {name: self.nodes[name] for name in group.producers}
        for name, parts in parts_allowed(nodes, self.input_scales).items():
            node, input_scale = self.nodes[name], self.input_scales[name]
            if parts > 1:
                whole = rounded_synapse(node, input_scale, scale, self.rounding, parts)
                self._place(name, split(whole, bits=self.rounding.weight_bits, even=self.rounding.even_weights))
            else:
                self._place(name, [fitted_synapse(node, input_scale, scale, self.rounding, inputs[name])])
        for name in group.readers:
            self.input_scales[name] = scale if group.inner else scale[:1]
        for name in group.layers:
            self.neurons[name] = _rounded_neurons(self.before.neurons[name], scale)
            self.nodes[name] = _node(self.neurons[name], self.before.graph.nodes[name])
        if group.readout:
            self.coding = replace(self.coding, readout_scale=float(np.float32(scale[0])))

    def _place(self, name: str, parts: list[nir.NIRNode]) -> None:
        """Puts a node in its place, and what it was split into beside it."""
        self.nodes[name] = parts[0]
        wires = [edge for edge in self.edges if name in edge]
        for part in parts[1:]:
            beside = free_name(self.nodes, name)
            self.nodes[beside] = part
            self.edges += [(beside if a == name else a, beside if b == name else b) for a, b in wires]

    def _scale(self, group: Group, inputs: Mapping[str, Tensor]) -> Scales:
        nodes = {name: self.nodes[name] for name in group.producers}
        threshold, by_channel, finest = None, False, np.zeros(1)
        # What carries a spike past a convolution takes more synapses side by side the finer the scale is, and where
        # channels differ it is no longer one number, which is quick to multiply by.
        one = any(parts > 1 for parts in parts_allowed(nodes, self.input_scales).values())
        if len(group.layers) == 1 and not group.readout:
            others = [name for name in group.readers if name not in group.layers]
            by_channel = all(facts(self.nodes[name]).kind == "pooling" for name in others)
            threshold = channel_thresholds(self.before.neurons[group.layers[0]].threshold, single=not by_channel)
            by_channel = by_channel and threshold is not None
        by_channel = self.per_channel and by_channel and not one
        for name in [*group.readers, *self._mirrored(group)]:
            finest = np.maximum(finest, self.finest[name] if by_channel else self.finest[name].max())
        return best_scale(
            nodes, self.input_scales, inputs, threshold, self.rounding, per_channel=by_channel, finest=finest
        )

    def _mirrored(self, group: Group) -> list[str]:
        """What takes the current of a group's layer with the sign turned: for its sake the scale is coarse enough."""
        turned = [name for name in group.readers if turns_sign(self.before.graph.nodes[name])]
        return [name for name in self.before.order if set(turned) & set(self.before.predecessors[name])]

    def _inner_scale(self, number: int, inputs: Mapping[str, Tensor]) -> Scales:
        group = self.ordered[number]
        channels, finest = base_channels(self.before, group), np.zeros(1)
        for name in group.readers:
            finest = np.maximum(finest, self.finest[name].reshape(channels, -1).max(1))
        return inner_scale(
            {name: self.nodes[name] for name in group.producers},
            self.input_scales,
            inputs,
            self.before.shapes,
            next(inputs[name] for name in group.readers if name in inputs),
            self.demands[number],
            self.rounding,
            finest,
        )

    def network(self) -> SpikingNetwork:
        """The network of integers."""
        graph = nir.NIRGraph(self.nodes, self.edges, metadata=self.before.graph.metadata, type_check=False)
        return replace(self.before, graph=graph, neurons=self.neurons, quantisation=self.coding)


def _rounded_neurons(spec: NeuronSpec, scale: Scales) -> NeuronSpec:
    channels = np.broadcast_to(scale, spec.shape[0])
    column = channels.reshape(-1, *[1] * (len(spec.shape) - 1))
    strict = spec.condition == ">"

    def half(values: FloatArray) -> FloatArray:
        return half_integers(np.asarray(values / column, np.float32), strict=strict)

    def whole(values: NDArray[np.float64]) -> FloatArray:
        return np.asarray(np.rint(values), np.float32)

    return replace(
        spec,
        threshold=np.maximum(whole(spec.threshold / column), np.float32(1)),
        v_init=half(spec.v_init),
        v_reset=None if spec.v_reset is None else half(spec.v_reset),
        bias=None if spec.bias is None else whole(spec.bias / channels),
        scale=np.array(channels),
    )


def _node(spec: NeuronSpec, node: nir.IF) -> nir.IF:
    reset = np.zeros_like(spec.threshold) if spec.v_reset is None else spec.v_reset
    return nir.IF(np.ones_like(spec.threshold), spec.threshold, reset, metadata=node.metadata)
