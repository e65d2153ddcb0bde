"""The states of samples as what overrides an ONNX graph's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cos_export.errors import InputError
from cos_export.network import SampleStates

__all__ = ["state_feeds"]


def state_feeds(there: Mapping[str, tuple[int, ...]], states: SampleStates | None, samples: int) -> dict[str, Any]:
    """What overrides the graph's own states, one array (samples, ...) each.

    Args:
        there: The shapes of what a run may override, without the batch axis, by name.
        states: What a per-sample method has set, or None.
        samples: N.

    Raises:
        InputError: The graph has no such states, or they have other shapes.
    """
    if states is None:
        return {}
    feeds: dict[str, Any] = {}
    for kind, values, dtype in (("v_init", states.v_init, np.float32), ("silent", states.silent, np.bool_)):
        for layer, value in values.items():
            name = f"{kind}/{layer}"
            if name not in there:
                layers = sorted(known.partition("/")[2] for known in there if known.startswith(f"{kind}/"))
                raise InputError(
                    f"The bundle's ONNX graph has no {kind} for layer {layer!r}; it has one for "
                    f"{', '.join(map(repr, layers)) or 'no layer'}. A method that sets states per sample needs a graph "
                    "that was exported for it."
                )
            array = np.ascontiguousarray(value, dtype)
            if array.shape != (samples, *there[name]):
                raise InputError(
                    f"{kind} of layer {layer!r} must have shape {(samples, *there[name])}, and has {array.shape}."
                )
            feeds[name] = array
    return feeds
