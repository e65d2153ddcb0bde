"""The golden run as arrays of C: what the test of a network compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cos_export.bundle.golden import Golden
from cos_export.c_code.names import Identifiers
from cos_export.c_code.source import CSource, quantised_images
from cos_export.c_code.tables import Table, Tables
from cos_export.errors import NetworkError

__all__ = ["Vectors", "fired_bytes", "integer_sums", "vectors_of"]

_START, _PRIME = 2166136261, 16777619
"""Of FNV-1a with 32 bits."""


@dataclass(frozen=True)
class Vectors:
    """Inputs and what comes of them.

    Attributes:
        samples: How many.
        tables: All arrays.
        images: The name of that of the inputs.
        sums: Of the readout by step.
        checksums: Of the spikes of each layer.
    """

    samples: int
    tables: list[Table]
    images: str
    sums: str
    checksums: str


def vectors_of(source: CSource, golden: Golden, samples: int) -> Vectors:
    """The first golden inputs, the sums of the readout, and a checksum of all spikes of each layer."""
    count = min(samples, len(golden.images))
    images = quantised_images(source.network, golden.images[:count])
    sums = integer_sums(source, golden.trace.logits[:, :count])
    checks = [
        _checksums(fired_bytes(source, name, golden.trace.spikes[name][:, :count])) for name in source.network.layers
    ]
    tables = Tables(Identifiers())
    kind = source.context["input_type"]
    names = (
        tables.add("golden", "_images", images.astype(np.int64), kind).name,
        tables.add("golden", "_sums", sums.reshape(count, -1), "int32_t").name,
        tables.add("golden", "_checksums", np.stack(checks, 1).reshape(count, -1), "uint32_t").name,
    )
    return Vectors(count, tables.tables, *names)


def integer_sums(source: CSource, logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The sums of the readout that logits (steps, samples, ...) are the scaled means of: (samples, steps, classes).

    Raises:
        NetworkError: They are not the scaled means of integers.
    """
    scale = np.float64(source.network.readout_scale)
    count = np.arange(1, len(logits) + 1, dtype=np.float64).reshape(-1, *[1] * (logits.ndim - 1))
    sums = np.rint(logits.astype(np.float64) / scale * count)
    if np.abs(sums * scale / count - logits).max(initial=0.0) > 1e-6 * max(1.0, float(np.abs(logits).max(initial=0.0))):
        raise NetworkError("The golden logits are not sums of integers: the bundle is of another network.")
    return sums.astype(np.int64).reshape(len(logits), logits.shape[1], -1).swapaxes(0, 1)


def fired_bytes(source: CSource, layer: str, spikes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What the C code tells of a layer: (samples, bytes), of all steps one after the other.

    Args:
        source: The code.
        layer: The layer.
        spikes: (steps, samples, ...).
    """
    storage = source.storages[layer]
    if source.network.schedule == "layerwise":
        counts = spikes.sum(0, dtype=np.uint8)
        return np.asarray(storage.arranged(counts, 1)).reshape(len(counts), -1)
    packed = storage.packed(spikes, 2)
    return packed.swapaxes(0, 1).reshape(packed.shape[1], -1)


def _checksums(fired: NDArray[np.uint8]) -> NDArray[np.int64]:
    """FNV-1a with 32 bits of each row."""
    sums = np.full(len(fired), _START, np.uint64)
    for column in fired.T:
        sums = (sums ^ column) * np.uint64(_PRIME) & np.uint64(0xFFFFFFFF)
    return sums.astype(np.int64)
