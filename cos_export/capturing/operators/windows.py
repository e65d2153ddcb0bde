"""What only moves values over space: crops, padding and strides, by one kernel for all channels or by none at all."""

from __future__ import annotations

from math import prod

import nir
import numpy as np

from cos_export.capturing.builder import Builder
from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.operators.synapses import listed

# Imported for the operator that it defines.
from cos_export.capturing.rewriting import window_operator  # noqa: F401
from cos_export.capturing.sliding import sliding
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__ = ["expanded"]


@operator("cos_export.window.default")
def _window(call: Call) -> Converted:
    value = call.signal("x")
    first, step, count = (tuple(call.arguments[key]) for key in ("first", "step", "count"))
    places = [first[0] + step[0] * i for i in range(count[0])]
    inside = [place if 0 <= place < value.channels else -1 for place in places]
    words = []
    if inside != list(range(value.channels)):
        value = value.gathered(inside, (count[0], *value.spatial))
        words.append(f"{sum(place >= 0 for place in inside)} channels at {count[0]} places")
    if (first[1:], step[1:], count[1:]) != ((0,) * len(value.spatial), (1,) * len(value.spatial), value.spatial):
        if not value.terms:
            raise Unsupported("nothing of its input is left", "leave it out")
        names, value = _moved(call.builder, call.name, value, first[1:], step[1:], count[1:])
        words.append(f"{listed(names)} that picks places")
    return Converted(value, " and ".join(words) or "nothing")


def _moved(
    builder: Builder, name: str, value: Value, first: Shape, step: Shape, count: Shape
) -> tuple[tuple[str, ...], Value]:
    """The value at evenly spaced places, 0 outside of it."""
    axes = [sliding(n, (at,), by, many) for n, at, by, many in zip(value.spatial, first, step, count, strict=True)]
    kernel, stride, padding = (
        tuple(getattr(axis, field) for axis in axes) for field in ("kernel", "stride", "padding")
    )
    shape = (value.channels, *count)
    if len(kernel) == 2 and prod(kernel) == 1 and not any(padding):
        # A window of one entry is a pooling without weights.
        source, result = builder.unweighted(
            name, value, shape, lambda _: nir.SumPool2d(np.ones(2, np.int64), np.array(stride), np.zeros(2, np.int64))
        )
        return (source,), result
    picked = np.zeros(kernel)
    picked[tuple(axis.entry(at) for axis, at in zip(axes, first, strict=True))] = 1.0
    return builder.windowed(name, value, shape, picked, stride, padding)


def expanded(builder: Builder, name: str, value: Value, shape: Shape) -> tuple[tuple[str, ...], Value]:
    """A value of one place for each channel, repeated over space: ones, as large as the map, over a padding with zeros.

    Args:
        builder: Gets the synapse.
        name: What to call it.
        value: (channels, 1, ...).
        shape: (channels, ...) of the result.

    Raises:
        Unsupported: Its map has more than one place, which no node of NIR repeats.
    """
    if prod(value.spatial) != 1 or value.split != 1 or shape[0] != value.channels:
        raise Unsupported(
            f"it repeats {value.shape} to {shape}, and no node of NIR puts copies or zeros between the places of a map",
            "repeat single places only, (channels, 1, 1), or work at the larger size from the start",
        )
    sizes = shape[1:]
    return builder.windowed(name, value, shape, np.ones(sizes), (1,) * len(sizes), tuple(n - 1 for n in sizes))
