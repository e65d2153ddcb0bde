"""The golden run: inputs, and every spike that the PyTorch reference fired for them."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import BundleError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork
from cos_export.simulation.trace import Trace

__all__ = ["Golden", "read_golden", "write_golden"]


@dataclass(frozen=True)
class Golden:
    """A run to compare others with.

    Attributes:
        images: (samples, ...) float32 inputs.
        trace: The reference's run of them: all spikes, logits, and the states of a per-sample method.
        labels: (samples,) class numbers, or None if unknown.
    """

    images: FloatArray
    trace: Trace
    labels: NDArray[np.int64] | None = None


def write_golden(path: Path, golden: Golden) -> None:
    """Writes `golden` as a compressed .npz.

    Spikes and silent masks are packed eight to a byte along the flattened neurons of each layer, as
    `spikes/<layer>` (steps, samples, bytes) and `silent/<layer>` (samples, bytes).
    """
    arrays: dict[str, NDArray] = {  # type: ignore[type-arg]
        "images": golden.images,
        "logits": golden.trace.logits,
        "rho": np.asarray(golden.trace.rho),
    }
    if golden.labels is not None:
        arrays["labels"] = golden.labels
    arrays |= {f"spikes/{name}": _pack(value, 2) for name, value in golden.trace.spikes.items()}
    if golden.trace.states is not None:
        arrays |= {f"v_init/{name}": value for name, value in golden.trace.states.v_init.items()}
        arrays |= {f"silent/{name}": _pack(value, 1) for name, value in golden.trace.states.silent.items()}
    # As numpy.savez_compressed does, but for zlib's level: 6, its default, takes three times as long for 4 % less.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def read_golden(path: Path, network: SpikingNetwork) -> Golden:
    """Reads what `write_golden` wrote for `network`.

    Raises:
        BundleError: The file is missing, damaged, or of another network.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    groups: dict[str, dict[str, NDArray]] = {"spikes": {}, "v_init": {}, "silent": {}}  # type: ignore[type-arg]
    for key, value in arrays.items():
        kind, _, name = key.partition("/")
        if kind in groups and name in network.neurons:
            groups[kind][name] = value
    if set(groups["spikes"]) != set(network.neurons) or not {"images", "logits", "rho"} <= set(arrays):
        raise BundleError(f"{path} does not hold the spikes of this network's layers.")
    states = None
    if groups["v_init"] or groups["silent"]:
        states = SampleStates(v_init=groups["v_init"], silent=_unpack_all(groups["silent"], network))
    trace = Trace(arrays["logits"], _unpack_all(groups["spikes"], network), {}, int(arrays["rho"]), states)
    return Golden(arrays["images"], trace, arrays.get("labels"))


def _pack(mask: NDArray[np.bool_], leading: int) -> NDArray[np.uint8]:
    return np.packbits(mask.reshape(*mask.shape[:leading], -1), axis=-1)


def _unpack_all(packed: dict[str, NDArray[np.uint8]], network: SpikingNetwork) -> dict[str, NDArray[np.bool_]]:
    result = {}
    for name, value in packed.items():
        shape = network.neurons[name].shape
        bits = np.unpackbits(value, axis=-1, count=math.prod(shape)).view(np.bool_)
        result[name] = bits.reshape(*value.shape[:-1], *shape)
    return result
