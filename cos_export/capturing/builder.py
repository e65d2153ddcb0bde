"""What the operations of a module become while it is walked: synapses, nodes without weights, and neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import nir
import numpy as np

from cos_export.capturing.carriers import Carriers
from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray, apply_gain, channel_weight, wired_weight
from cos_export.capturing.grouping import grouping_of
from cos_export.capturing.options import SMALLEST_THRESHOLD
from cos_export.capturing.populations import split_by_readers
from cos_export.capturing.spike_counts import SpikeCount, SpikeCounts
from cos_export.capturing.synapse import (
    LARGEST_DENSE,
    Synapse,
    check_finite,
    depthwise,
    pays_depthwise,
    pointwise,
    set_types,
)
from cos_export.capturing.unfinished_graph import INPUT, UnfinishedGraph
from cos_export.capturing.values import Term, Value, pack, vector
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.graph import Shape

__all__ = ["Builder"]


class Builder:
    """The graph so far.

    Args:
        input_shape: The shape of one sample.

    Attributes:
        input: What the module takes.
        unbounded: The layers of neurons that stand for a ReLU without an upper bound.
        counts: What sends spike counts.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._graph = UnfinishedGraph(input_shape)
        self._neurons: dict[str, NeuronSpec] = {}
        self._unknown = 0
        self.unbounded: set[str] = set()
        self.counts = SpikeCounts()
        self._carriers = Carriers(self._graph, self.counts)
        self.input = Value(input_shape, (Term(INPUT, input_shape[0]),))

    @property
    def layer_count(self) -> int:
        """How many spiking layers there are."""
        return len(self._neurons)

    @property
    def neuron_count(self) -> int:
        """How many neurons there are."""
        return sum(spec.threshold.size for spec in self._neurons.values())

    def unknown(self, shape: Shape) -> Value:
        """A stand-in for what could not be converted, so that the walk can go on and find what else is wrong."""
        self._unknown += 1
        return Value(shape, (Term(f"?{self._unknown}", shape[0]),))

    @staticmethod
    def is_unknown(value: Value) -> bool:
        """Whether a part of `value` is such a stand-in."""
        return any(term.source.startswith("?") for term in value.terms)

    def add(self, preferred: str, node: nir.NIRNode | Synapse, sources: Sequence[str]) -> str:
        """Adds a node that takes the sum of what `sources` send, as it is; returns its name."""
        return self._graph.add(preferred, node, sources)

    def synapse(self, preferred: str, value: Value, synapse: Synapse) -> tuple[tuple[str, ...], Value]:
        """Adds a synapse that takes `value`, whose pending scale goes into the weights.

        Where `value` is put together from channels of several nodes, each gets a synapse of its own with the part
        of the weights that reads it, the first of them the bias: their sum is what the one synapse gives.

        Returns:
            The nodes' names, and what they give together.

        Raises:
            Unsupported: A weight is not a finite float32 number.
        """
        if synapse.groups > 1 and any(term.index is not None for term in value.terms):
            # The groups need not match the parts, so the channels are brought together first.
            value = Value(value.shape, tuple(Term(name, value.channels) for name in self._carriers.unit_sources(value)))
        names, bias = [], synapse.bias
        for sources, term in self._carriers.parts(value):
            part = replace(
                synapse,
                weight=wired_weight(synapse.weight, term, synapse.groups),
                bias=bias,
                input_shape=(term.width, *value.spatial),
                reads=term.reads,
            )
            check_finite(part)
            names.append(self.add(preferred, part, sources))
            bias = np.zeros_like(bias)
        channels = synapse.output_shape[0]
        return tuple(names), Value(synapse.output_shape, tuple(Term(name, channels) for name in names))

    def fold_gain(self, names: tuple[str, ...], gain: DoubleArray, offset: DoubleArray) -> None:
        """Replaces the synapses `names` by gain * (the sum of their outputs) + offset, per channel.

        Raises:
            Unsupported: A weight is no longer a finite float32 number.
        """
        for name in names:
            synapse = self._graph.synapse(name)
            if synapse is not None:
                synapse.weight, synapse.bias = apply_gain(synapse.weight, synapse.bias, gain, offset)
                check_finite(synapse)
            offset = np.zeros_like(offset)

    def channel_gain(
        self, preferred: str, value: Value, gain: DoubleArray, offset: DoubleArray
    ) -> tuple[tuple[str, ...], Value]:
        """Adds the synapse that multiplies each channel by its gain and adds its offset.

        It is dense where that is small, for all readers of NIR take it, and else depthwise, if channels are whole.
        """
        if pays_depthwise(value.shape):
            if all(term.index is None for term in value.terms):
                return self.synapse(preferred, value, depthwise(value.shape, gain, offset))
            grouping = grouping_of(value)
            if grouping is not None:
                return self._carriers.grouped(preferred, value, gain, offset, grouping)
        return self.synapse(preferred, value, pointwise(value.shape, channel_weight(gain, value.shape), offset))

    def place_gain(self, preferred: str, value: Value, gain: DoubleArray) -> tuple[str, Value]:
        """As `Carriers.by_place`."""
        return self._carriers.by_place(preferred, value, gain)

    def unweighted(
        self, preferred: str, value: Value, shape: Shape, make: Callable[[Shape], nir.NIRNode], spread: int = 1
    ) -> tuple[str, Value]:
        """Adds a node without weights (pooling, flatten) for each way in which channels are pending, which they stay.

        Args:
            preferred: The name to give it.
            value: What it takes.
            shape: Of the result.
            make: The node for an input of a shape.
            spread: Channels of the result for each of `value`.

        Returns:
            The first node's name, and the value of `shape` that they give together.
        """
        terms = []
        for term, sources in value.pending().items():
            input_shape = (term.width, *value.spatial)
            node, after = make(input_shape), term.spread(spread)
            set_types(node, input_shape, (after.width, *shape[1:]))
            terms.append(replace(after, source=self.add(preferred, node, sources)))
        return terms[0].source, Value(shape, tuple(terms))

    def mixed(
        self, preferred: str, value: Value, weight: DoubleArray, bias: DoubleArray | None = None
    ) -> tuple[tuple[str, ...], Value]:
        """Adds the synapse that takes weighted sums of channels, the same at each place.

        Args:
            preferred: The name to give it.
            value: (channels, ...).
            weight: (channels of the result, channels).
            bias: (channels of the result,), or None for zero.
        """
        shape = (len(weight), *value.spatial)
        full = weight.reshape(*weight.shape, *[1] * len(value.spatial))
        bias = np.zeros(len(weight)) if bias is None else bias
        return self.synapse(preferred, value, pointwise(shape, full, bias, in_channels=value.channels))

    def windowed(
        self,
        preferred: str,
        value: Value,
        shape: Shape,
        kernel: DoubleArray,
        stride: Shape,
        padding: Shape,
    ) -> tuple[tuple[str, ...], Value]:
        """Adds the synapse that slides one kernel over each channel, for each way in which channels are pending.

        It is dense where that is small, for all readers of NIR take it, and else depthwise.

        Args:
            preferred: The name to give it.
            value: What it takes.
            shape: Of the result.
            kernel: (length,) or (height, width).
            stride: One number per spatial axis, as padding.
            padding: Zeros on both sides.

        Returns:
            The nodes' names, and the value of `shape` that they give together, with what was pending.
        """
        terms, ones = [], (1,) * len(stride)
        for term, sources in value.pending().items():
            width = term.width
            dense = width * width * kernel.size <= LARGEST_DENSE
            weight = np.eye(width).reshape(width, width, *ones) if dense else np.ones((width, 1, *ones))
            synapse = Synapse(
                weight * kernel,
                np.zeros(width),
                (width, *value.spatial),
                (width, *shape[1:]),
                stride,
                padding,
                ones,
                1 if dense else width,
            )
            terms.append(replace(term, source=self.add(preferred, synapse, sources)))
        return tuple(term.source for term in terms), Value(shape, tuple(terms))

    def flattened(self, preferred: str, value: Value) -> Value:
        """`value` as features, (features,)."""
        count, rank = prod(value.spatial), len(value.spatial) + 1
        _, result = self.unweighted(
            preferred,
            value,
            (prod(value.shape),),
            lambda shape: nir.Flatten({"input": np.array(shape)}, start_dim=-rank, end_dim=-1),
            spread=count,
        )
        return result

    def neurons(
        self,
        preferred: str,
        value: Value,
        threshold: float | DoubleArray,
        levels: int | None,
        *,
        unbounded: bool = False,
    ) -> tuple[str, Value]:
        """Adds a layer of neurons with theta = `threshold` and v(0) = theta / 2.

        Args:
            preferred: The name to give it.
            value: The current.
            threshold: One number, or one for each channel.
            levels: L of the activation that the layer stands for, or None for a clipped ReLU.
            unbounded: Whether that is a ReLU without an upper bound.
        """
        rounded = vector(pack(np.atleast_1d(np.asarray(threshold, np.float32)).astype(np.float64)), value.channels)
        if not (np.isfinite(rounded).all() and (rounded >= SMALLEST_THRESHOLD).all()):
            raise Unsupported(
                f"its threshold {float(np.min(threshold)):.4g} is 0, not positive or not finite in float32",
                "look for a bound or a trained threshold that has vanished or exploded, and train with a larger one",
            )
        sources, places = self._carriers.on_one_wire(value)
        column = np.empty_like(rounded)
        column[places] = rounded
        theta = np.broadcast_to(column.reshape(-1, *[1] * len(value.spatial)), value.shape).astype(np.float32)
        node = nir.IF(r=np.ones_like(theta), v_threshold=theta, v_reset=np.zeros_like(theta))
        name = self.add(preferred, node, sources)
        self._neurons[name] = NeuronSpec(threshold=theta, v_init=theta / np.float32(2), levels=levels)
        self.counts.add(SpikeCount((name,), value.spatial, levels, unbounded, value))
        if unbounded:
            self.unbounded.add(name)
        index = None if np.array_equal(places, np.arange(len(places))) else tuple(places.tolist())
        return name, Value(value.shape, (Term(name, value.channels, pack(rounded), index),))

    def finish(self, output: Value, left_out: tuple[str, ...] = ()) -> SpikingNetwork:
        """The network whose readout is `output`, flattened if it is not a vector.

        Args:
            output: What the module returns.
            left_out: What it does to that at its end, and the network does not.
        """
        shape = output.shape
        if output.order is not None:
            raise Unsupported(
                "its channels are behind other axes where it ends",
                "return (batch, channels, height, width)",
            )
        if len(shape) > 1:
            output = self.flattened("flatten", output)
        self._graph.close(output.shape, self._carriers.unit_sources(output))
        self.unbounded |= split_by_readers(self._graph, self._neurons, self.unbounded)
        graph = self._graph.finished()
        return SpikingNetwork(
            graph,
            self._neurons,
            method="half",
            calibration={"name": "half"},
            left_out=left_out,
            readout_shape=shape if len(shape) > 1 else None,
        )
