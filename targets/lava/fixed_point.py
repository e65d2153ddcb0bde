"""A node of a network in fixed point as the worker computes it: in integers, and neurons with potentials of 24 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.simulation.fixed_point import LARGEST_POTENTIAL
from targets.lava.lowered_node import LoweredNode

__all__ = ["in_integers"]


def in_integers(node: LoweredNode) -> LoweredNode:
    """The node in integers: its neurons' arrays as int32, and its weights, which must be integers, as they are.

    Raises:
        NetworkError: A number is not an integer or does not fit into 24 bits, or the node divides.
    """
    if node.kind == "neuron":
        return _neurons(node)
    if node.kind == "pool" and node.settings["divisor"] != 1:
        raise NetworkError("an average is not an integer. Sum, and divide in the weights that follow.")
    for key, array in node.arrays.items():
        _check_whole(key, array)
    return node


def _neurons(node: LoweredNode) -> LoweredNode:
    """m(t) - v(0) is an integer, so only the whole part of v(0) matters, and a strict comparison needs no other code.

    With integers k and theta, v(0) in [k, k + 1) gives m(t) >= theta at the same steps as k does, and v(0) in
    (k, k + 1] gives m(t) > theta at the steps at which k gives m(t) >= theta.
    """
    strict = node.settings["condition"] == ">"
    arrays: dict[str, NDArray[Any]] = {}
    for key, array in node.arrays.items():
        if key in ("v_init", "v_reset"):
            arrays[key] = _int24(key, np.ceil(array) - 1 if strict else np.floor(array))
        elif key in ("threshold", "bias"):
            _check_whole(key, array)
            arrays[key] = _int24(key, array)
        else:
            arrays[key] = array
    settings: Mapping[str, Any] = {**node.settings, "condition": ">="}
    return replace(node, settings=settings, arrays=arrays)


def _check_whole(key: str, array: NDArray[Any]) -> None:
    if not np.array_equal(array, np.rint(array)):
        raise NetworkError(f"{key} holds numbers that are not integers, and the network is one of integers.")


def _int24(key: str, array: NDArray[Any]) -> NDArray[np.int32]:
    largest = float(np.abs(array).max(initial=0.0))
    if largest > LARGEST_POTENTIAL:
        raise NetworkError(f"{key} reaches {largest:.0f}, and potentials of 24 bits end at {LARGEST_POTENTIAL}.")
    return np.ascontiguousarray(array, np.int32)
