"""Collects the nodes and edges of a NIR graph while a module is walked."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import nir
import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray, apply_gain, channel_weight
from cos_export.capturing.values import Term, Value
from cos_export.graph import Shape
from cos_export.network import NeuronSpec, SpikingNetwork

__all__ = ["Builder", "Synapse"]


@dataclass
class Synapse:
    """A convolution or affine map whose weights may still change, in float64.

    Attributes:
        weight: (out, in), (out, in / groups, k) or (out, in / groups, kh, kw).
        bias: (out,).
        input_shape: What it takes.
        output_shape: What it gives.
        stride: One number per spatial axis, as dilation.
        padding: One number per spatial axis, or "same" where a side gets one more than the other.
        dilation: Spacing of the kernel.
        groups: Of channels.
    """

    weight: DoubleArray
    bias: DoubleArray
    input_shape: Shape
    output_shape: Shape
    stride: Shape = ()
    padding: Shape | Literal["same"] = ()
    dilation: Shape = ()
    groups: int = 1

    def node(self) -> nir.NIRNode:
        """The NIR node, its weights rounded to float32."""
        weight, bias = self.weight.astype(np.float32), self.bias.astype(np.float32)
        if weight.ndim == 2:
            return nir.Affine(weight=weight, bias=bias)
        if weight.ndim == 3:
            padding = self.padding if self.padding == "same" else self.padding[0]
            node = nir.Conv1d(self.input_shape[1], weight, self.stride[0], padding, self.dilation[0], self.groups, bias)
        else:
            node = nir.Conv2d(self.input_shape[1:], weight, self.stride, self.padding, self.dilation, self.groups, bias)
        # NIR infers these right for square kernels without groups only.
        _set_types(node, self.input_shape, self.output_shape)
        return node


class Builder:
    """The graph so far.

    Args:
        input_shape: The shape of one sample.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._nodes: dict[str, nir.NIRNode | Synapse] = {}
        self._edges: list[tuple[str, str]] = []
        self._neurons: dict[str, NeuronSpec] = {}
        self._scaled: dict[Term, str] = {}
        self._unknown = 0
        self._nodes["input"] = nir.Input({"input": np.array(input_shape)})
        self.input = Value(input_shape, (Term("input", 1.0),))

    @property
    def layer_count(self) -> int:
        """How many spiking layers there are."""
        return len(self._neurons)

    def unknown(self, shape: Shape) -> Value:
        """A stand-in for what could not be converted, so that the walk can go on and find what else is wrong."""
        self._unknown += 1
        return Value(shape, (Term(f"?{self._unknown}", 1.0),))

    def synapse(self, wanted: str, value: Value, synapse: Synapse) -> tuple[str, Value]:
        """Adds a synapse that takes `value`, whose pending scale goes into the weights.

        Returns:
            The node's name, and what it gives.

        Raises:
            Unsupported: A weight is not a finite float32 number.
        """
        sources, scale = self._common_scale(value)
        synapse.weight = synapse.weight * scale
        _check_finite(synapse)
        name = self._add(wanted, synapse, sources)
        return name, Value(synapse.output_shape, (Term(name, 1.0),))

    def fold_gain(self, name: str, gain: DoubleArray, offset: DoubleArray) -> None:
        """Replaces the synapse `name` by gain * (its output) + offset, per channel.

        Raises:
            Unsupported: A weight is no longer a finite float32 number.
        """
        synapse = self._nodes[name]
        if isinstance(synapse, Synapse):
            synapse.weight, synapse.bias = apply_gain(synapse.weight, synapse.bias, gain, offset)
            _check_finite(synapse)

    def channel_gain(self, wanted: str, value: Value, gain: DoubleArray, offset: DoubleArray) -> tuple[str, Value]:
        """Adds the synapse that multiplies each channel by its gain and adds its offset."""
        return self.synapse(wanted, value, _pointwise(value.shape, gain, offset))

    def unweighted(self, wanted: str, value: Value, shape: Shape, make: Callable[[], nir.NIRNode]) -> tuple[str, Value]:
        """Adds a node without weights (pooling, flatten), one for each pending scale, which stays pending.

        Returns:
            The first node's name, and the value of `shape` that they give together.
        """
        by_scale: dict[float, list[str]] = {}
        for term in value.terms:
            by_scale.setdefault(term.scale, []).append(term.source)
        terms = []
        for scale, sources in by_scale.items():
            node = make()
            _set_types(node, value.shape, shape)
            terms.append(Term(self._add(wanted, node, sources), scale))
        return terms[0].source, Value(shape, tuple(terms))

    def neurons(self, wanted: str, value: Value, threshold: float, levels: int) -> tuple[str, Value]:
        """Adds a layer of neurons with theta = `threshold` and v(0) = theta / 2."""
        theta = np.full(value.shape, threshold, np.float32)
        node = nir.IF(r=np.ones_like(theta), v_threshold=theta, v_reset=np.zeros_like(theta))
        name = self._add(wanted, node, self._unit_sources(value))
        self._neurons[name] = NeuronSpec(threshold=theta, v_init=theta / np.float32(2), levels=levels)
        return name, Value(value.shape, (Term(name, float(np.float32(threshold))),))

    def finish(self, output: Value) -> SpikingNetwork:
        """The network whose readout is `output`."""
        node = nir.Output({"output": np.array(output.shape)})
        sources = self._unit_sources(output)
        self._nodes["output"] = node
        self._edges += [(source, "output") for source in sources]
        nodes = {name: node.node() if isinstance(node, Synapse) else node for name, node in self._nodes.items()}
        return SpikingNetwork(nir.NIRGraph(nodes, self._edges, metadata={}, type_check=False), self._neurons)

    def _add(self, wanted: str, node: nir.NIRNode | Synapse, sources: list[str]) -> str:
        name = self._free_name(wanted)
        self._nodes[name] = node
        self._edges += [(source, name) for source in sources]
        return name

    def _free_name(self, wanted: str) -> str:
        """A name that every reader of NIR takes: an identifier, no keyword, not taken, not an end of the graph."""
        base = re.sub(r"\W", "_", wanted) or "node"
        if base[0].isdigit():
            base = f"layer_{base}"
        if keyword.iskeyword(base):
            base += "_"
        name, count = base, 0
        while name in self._nodes or name in ("input", "output"):
            count += 1
            name = f"{base}_{count}"
        return name

    def _common_scale(self, value: Value) -> tuple[list[str], float]:
        """Sources whose sum, times the scale, is `value`: terms of a rarer scale get a synapse of their own."""
        common = Counter(term.scale for term in value.terms).most_common(1)[0][0]
        if common == 0.0 and any(term.scale for term in value.terms):
            common = 1.0
        return [
            term.source
            if term.scale == common
            else self._scaled_source(Term(term.source, term.scale / common), value.shape)
            for term in value.terms
        ], common

    def _unit_sources(self, value: Value) -> list[str]:
        return [term.source if term.scale == 1.0 else self._scaled_source(term, value.shape) for term in value.terms]

    def _scaled_source(self, term: Term, shape: Shape) -> str:
        """The synapse that carries a pending scale where nothing else can, such as a residual's identity path."""
        if term not in self._scaled:
            gain = np.full(shape[0], term.scale)
            synapse = _pointwise(shape, gain, np.zeros(shape[0]))
            _check_finite(synapse)
            self._scaled[term] = self._add(f"{term.source}_scaled", synapse, [term.source])
        return self._scaled[term]


def _pointwise(shape: Shape, gain: DoubleArray, offset: DoubleArray) -> Synapse:
    axes = len(shape) - 1
    return Synapse(channel_weight(gain, shape), offset, shape, shape, (1,) * axes, (0,) * axes, (1,) * axes)


def _check_finite(synapse: Synapse) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        finite = all(np.isfinite(a.astype(np.float32)).all() for a in (synapse.weight, synapse.bias))
    if not finite:
        raise Unsupported(
            "its weights, once batch norm and thresholds are folded in, hold values that are not finite in float32",
            "look for nan, inf or a vanishing running variance in the trained weights",
        )


def _set_types(node: nir.NIRNode, taken: Shape, given: Shape) -> None:
    node.input_type, node.output_type = {"input": np.array(taken)}, {"output": np.array(given)}
