"""Whether a network that says it is one of integers is: every array of every node, whatever its type."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts, weight_field
from cos_export.numerics import signed_range

__all__ = ["check_integers"]

_WHOLE, _HALF = ("threshold", "bias"), ("v_init", "v_reset")


def check_integers(network: SpikingNetwork) -> None:
    """Refuses a network of integers with a number in it that is not one; of any other network it says nothing.

    Integers are all arrays of the nodes, thresholds and biases per step, weights of the width that the network says;
    v_init and v_reset lie halfway between two.

    Raises:
        NetworkError: A number is not an integer, a potential not a half-integer, or a weight too wide; it names the
            node.
    """
    if network.quantisation is None:
        return
    numerics = network.numerics
    for name in network.order:
        spec = network.neurons.get(name)
        if spec is None:
            for field, values in _arrays(network.graph.nodes[name]):
                _refuse(name, field, numerics, values, "an integer", values != np.rint(values))
            _check_weights(name, network.graph.nodes[name], network.quantisation.weight_bits)
            continue
        for field in _WHOLE:
            values = getattr(spec, field)
            if values is not None:
                _refuse(name, field, numerics, values, "an integer", values != np.rint(values))
        for field in _HALF:
            values = getattr(spec, field)
            if values is not None:
                # Half-integers, so that no potential ties with its threshold.
                _refuse(name, field, numerics, values, "a half-integer", values - np.floor(values) != 0.5)


def _check_weights(name: str, node: nir.NIRNode, bits: int) -> None:
    if not facts(node).weighted:
        return
    weight, (least, largest) = np.asarray(getattr(node, weight_field(node))), signed_range(bits)
    if weight.min() < least or weight.max() > largest:
        raise NetworkError(f"Node {name!r}: its weights must be integers of {least}..{largest}.")


def _arrays(node: nir.NIRNode) -> list[tuple[str, NDArray[np.floating]]]:
    """The arrays of a node that can hold fractions, whatever its type calls them."""
    names = [field.name for field in fields(node)] if is_dataclass(node) else []
    held = [(name, getattr(node, name)) for name in names]
    return [(name, np.asarray(value)) for name, value in held if _floats(value)]


def _floats(value: object) -> bool:
    return isinstance(value, (np.ndarray, np.floating, float)) and np.asarray(value).dtype.kind == "f"


def _refuse(
    name: str, field: str, numerics: str, values: NDArray[np.floating], kind: str, wrong: NDArray[np.bool_]
) -> None:
    if not np.any(wrong):
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = int(np.count_nonzero(wrong))
    raise NetworkError(
        f"Node {name!r}: {field}{list(at) if at else ''} is {float(np.asarray(values)[at])!r}, and in a network of "
        f"numerics {numerics} each must be {kind}; {count:,} of {np.size(values):,} are not. Quantise the float32 "
        "network again (cos_export.quantise) after its weights were changed."
    )
