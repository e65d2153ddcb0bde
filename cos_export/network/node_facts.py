"""What a NIR node is: described once for each type, and asked for by whoever has to tell nodes apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network.graph import Convolution, Pooling, convolution, pooling

__all__ = ["REFUSED", "Kind", "NodeFacts", "bias_of", "facts", "known_types", "weight_field"]

Kind = Literal["input", "output", "neurons", "synapse", "pooling", "rearrangement"]


@dataclass(frozen=True)
class NodeFacts:
    """What a node is.

    Attributes:
        kind: "input", "output", "neurons" (of integrate-and-fire), "synapse" (it has weights), "pooling" (it sums or
            averages windows), or "rearrangement" (it computes nothing).
        weights: The field that holds a synapse's weights, output channels along the first axis; else None.
        bias: The field that holds its bias, (output channels,) or one number for all; None if its type has none.
        takes_bias: Whether it can be given one bias for each output channel (a `nir.Linear` becomes a `nir.Affine`).
        geometry: How its window slides, if it has one.
        terms: The number of products, or of values, that one output sums; 0 where nothing is computed.
        divisor: What the sum over a window is divided by.
    """

    kind: Kind
    weights: str | None = None
    bias: str | None = None
    takes_bias: bool = False
    geometry: Convolution | Pooling | None = None
    terms: int = 0
    divisor: int = 1

    @property
    def weighted(self) -> bool:
        """Whether it has weights, so that what it sends is counted in a scale of its own."""
        return self.weights is not None

    @property
    def keeps_scale(self) -> bool:
        """Whether what it sends is counted in the scale of its input."""
        return self.kind in ("pooling", "rearrangement")


REFUSED: Mapping[str, str] = {
    "LIF": "leaky neurons are not supported: an integrate-and-fire neuron keeps its potential",
    "CubaLIF": "leaky neurons are not supported: an integrate-and-fire neuron keeps its potential, and takes its "
    "current as it comes",
    "LI": "leaky neurons are not supported, and these never fire",
    "CubaLI": "leaky neurons are not supported, and these never fire",
    "I": "it integrates and never fires",
    "Threshold": "it fires without a potential that goes from step to step",
    "Delay": "it holds spikes back, and every wire of these networks delivers in the step in which a neuron fires",
    "NIRGraph": "it is a graph inside the graph; flatten it first",
}
"""What stands in the way of NIR's other types."""


@singledispatch
def facts(node: nir.NIRNode) -> NodeFacts:
    """What `node` is.

    Raises:
        NetworkError: Networks of integrate-and-fire neurons have no nodes of its type.
    """
    kind = type(node).__name__
    why = f": {REFUSED[kind]}" if kind in REFUSED else ""
    raise NetworkError(f"a node of type {kind} cannot be run{why}. Known are {', '.join(known_types())}.")


def weight_field(node: nir.NIRNode) -> str:
    """The field that holds the weights of a synapse.

    Raises:
        NetworkError: It has none.
    """
    field = facts(node).weights
    if field is None:
        raise NetworkError(f"a node of type {type(node).__name__} has no weights.")
    return field


def bias_of(node: nir.NIRNode) -> NDArray[Any] | None:
    """The bias of a node, (output channels,) or one number for all, or None if it has none."""
    field = facts(node).bias
    return None if field is None else np.asarray(getattr(node, field))


def known_types() -> tuple[str, ...]:
    """The names of the node types that can be run, in alphabetical order."""
    return tuple(sorted(kind.__name__ for kind in facts.registry if kind is not object))


@facts.register
def _(node: nir.Input) -> NodeFacts:
    return NodeFacts("input")


@facts.register
def _(node: nir.Output) -> NodeFacts:
    return NodeFacts("output")


@facts.register
def _(node: nir.IF) -> NodeFacts:
    return NodeFacts("neurons")


@facts.register(nir.Conv1d)
@facts.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d) -> NodeFacts:
    terms = int(np.prod(np.shape(node.weight)[1:]))
    return NodeFacts("synapse", "weight", "bias", takes_bias=True, geometry=convolution(node), terms=terms)


@facts.register
def _(node: nir.Affine) -> NodeFacts:
    return NodeFacts("synapse", "weight", "bias", takes_bias=True, terms=int(np.shape(node.weight)[1]))


@facts.register
def _(node: nir.Linear) -> NodeFacts:
    return NodeFacts("synapse", "weight", takes_bias=True, terms=int(np.shape(node.weight)[1]))


@facts.register
def _(node: nir.Scale) -> NodeFacts:
    return NodeFacts("synapse", "scale", terms=1)


@facts.register(nir.SumPool2d)
@facts.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d) -> NodeFacts:
    window = pooling(node)
    size = int(np.prod(window.kernel))
    return NodeFacts("pooling", geometry=window, terms=size, divisor=size if isinstance(node, nir.AvgPool2d) else 1)


@facts.register
def _(node: nir.Flatten) -> NodeFacts:
    return NodeFacts("rearrangement")
