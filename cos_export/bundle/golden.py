"""The golden run: inputs, and every spike that the PyTorch reference fired for them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.atomic_file import atomic_write
from cos_export.datasets.labels import class_numbers
from cos_export.decisions import class_count
from cos_export.errors import BundleError, InputError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.graph import Shape
from cos_export.reading.limits import MAX_STEPS
from cos_export.reading.npz import NpzReader, open_npz
from cos_export.simulation.trace import Recording, Trace
from cos_export.whole_number import whole_number

__all__ = ["Golden", "read_golden", "unpacked", "write_arrays", "write_golden"]


@dataclass(frozen=True)
class Golden:
    """A run to compare others with.

    Attributes:
        images: (samples, ...) float32 inputs; of a network that takes frames (samples, steps, ...).
        trace: The reference's run of them: all spikes, logits, and the states of a per-sample method.
        labels: (samples,) class numbers, or None if unknown.
    """

    images: FloatArray
    trace: Trace
    labels: NDArray[np.int64] | None = None

    def part(self, samples: Sequence[int]) -> Golden:
        """The run of some of the inputs, by their numbers from 0, in that order.

        Raises:
            InputError: They are none, not whole numbers, listed twice, or there are no such inputs.
        """
        chosen = np.array(
            [whole_number("a golden input's number", number, 0, len(self.images) - 1) for number in samples], np.intp
        )
        if not len(chosen) or len(set(chosen.tolist())) < len(chosen):
            raise InputError(
                "Which of the golden inputs were run must be said with each of them once, and at least one."
            )
        labels = None if self.labels is None else self.labels[chosen]
        return Golden(self.images[chosen], self.trace.part(chosen), labels)


def write_golden(path: Path, golden: Golden) -> None:
    """Writes `golden` as a compressed .npz.

    Spikes and silent masks are packed eight to a byte along the flattened neurons of each layer, as
    `spikes/<layer>` (steps, samples, bytes) and `silent/<layer>` (samples, bytes).

    Raises:
        InputError: There is no such folder, or it may not be written.
        StorageError: The disk is full, or failed.
    """
    write_arrays(path, _arrays_of(golden))


def _arrays_of(golden: Golden) -> Iterator[tuple[str, NDArray[Any]]]:
    """What the file holds, by name; of one layer after the other, for all of them are not to be in memory at once."""
    yield "images", golden.images
    yield "logits", golden.trace.logits
    yield "rho", np.asarray(golden.trace.rho)
    if golden.labels is not None:
        yield "labels", golden.labels
    for name, spikes in golden.trace.spikes.items():
        yield f"spikes/{name}", _pack(spikes, 2)
    if golden.trace.states is not None:
        for name, potentials in golden.trace.states.v_init.items():
            yield f"v_init/{name}", potentials
        for name, mask in golden.trace.states.silent.items():
            yield f"silent/{name}", _pack(mask, 1)


def write_arrays(path: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Writes arrays as a compressed .npz.

    Args:
        path: The file.
        arrays: Each with its name.

    Raises:
        InputError: There is no such folder, or it may not be written.
        StorageError: The disk is full, or failed.
    """
    # As numpy.savez_compressed does, but for zlib's level: 6, its default, takes three times as long for 4 % less.
    with atomic_write(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def read_golden(path: Path, network: SpikingNetwork) -> Golden:
    """Reads what `write_golden` wrote for `network`.

    Every array has the type and shape that the network, and the samples and steps of the logits, ask for; that is
    checked by the headers, before anything is read.

    Raises:
        BundleError: The file is missing, damaged, or of another network.
        StorageError: The run does not fit in memory, and the temporary folder cannot hold it.
    """
    try:
        with open_npz(path, links=False) as archive:
            _check_headers(path, archive, network)
            steps, samples = archive.header("logits").shape[:2]
            states = any(name.startswith(("v_init/", "silent/")) for name in archive.names)
            recording = Recording(network, samples, steps, states=states)
            arrays: dict[str, NDArray[Any]] = {}
            for name in archive.names:
                kind, _, layer = name.partition("/")
                if kind == "v_init":
                    sample_bytes = 4 * math.prod(network.neurons[layer].shape)
                    for part in _parts_of(archive, name, list(recording.v_init.blocks(sample_bytes))):
                        _check_finite(path, name, part)
                        recording.v_init.add(layer, part)
                    continue
                array = archive.read(name)
                _check_finite(path, name, array)
                if layer:
                    axis, shape = int(kind == "spikes"), network.neurons[layer].shape
                    parts = recording.spikes if axis else recording.silent
                    for block in parts.blocks(math.prod(shape) * (steps if axis else 1)):
                        parts.add(layer, unpacked(array[:, block] if axis else array[block], shape))
                else:
                    arrays[name] = array
        labels = arrays.get("labels")
        if labels is not None:
            class_numbers(labels, len(arrays["images"]), class_count(network.output_shape[-1]), f"'labels' in {path}")
    except InputError as error:
        raise BundleError(str(error)) from error
    rho = int(arrays["rho"])
    if not 0 <= rho <= MAX_STEPS:
        raise BundleError(f"'rho' in {path} is {rho}, and must be from 0 to {MAX_STEPS}.")
    recording.add(Trace(arrays["logits"], rho=rho))
    return Golden(arrays["images"], recording.trace(), labels)


def _parts_of(archive: NpzReader, name: str, blocks: Sequence[slice]) -> Iterator[NDArray[Any]]:
    """Consecutive samples of an array (samples, ...) of an archive; of several parts one is in memory at once."""
    if len(blocks) == 1 or archive.header(name).fortran_order:
        whole = archive.read(name)
        yield from (whole[block] for block in blocks)
        return
    stored = archive.stored(name)
    yield from (stored.read(range(block.start, block.stop)) for block in blocks)


def _check_finite(path: Path, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BundleError(f"{name!r} in {path} holds values that are not finite numbers (nan or inf).")


def _check_headers(path: Path, archive: NpzReader, network: SpikingNetwork) -> None:
    if len(archive.names) > 4 + 3 * len(network.neurons):
        raise BundleError(f"{path} holds {len(archive.names):,} arrays, more than the run of this network has.")
    headers = {name: archive.header(name) for name in archive.names}
    needed = ("images", "logits", "rho", *(f"spikes/{name}" for name in network.layers))
    missing = [name for name in needed if name not in headers]
    if missing:
        raise BundleError(f"{path} has no {missing[0]!r}: it does not hold the run of this network.")
    samples, steps = headers["images"].shape[:1], headers["logits"].shape[:1]
    if not samples or not steps or samples[0] < 1 or not 1 <= steps[0] <= MAX_STEPS:
        raise BundleError(f"'images' and 'logits' in {path} do not have samples, and from 1 to {MAX_STEPS} steps.")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "images": ("float32", (*samples, *(steps if network.input_encoding == "frames" else ()), *network.input_shape)),
        "logits": ("float32", (*steps, *samples, *network.output_shape)),
        "rho": ("int64", ()),
        "labels": ("int64", samples),
    }
    for name, spec in network.neurons.items():
        packed = (math.prod(spec.shape) + 7) // 8
        expected[f"spikes/{name}"] = ("uint8", (*steps, *samples, packed))
        expected[f"silent/{name}"] = ("uint8", (*samples, packed))
        expected[f"v_init/{name}"] = ("float32", (*samples, *spec.shape))
    for name, header in headers.items():
        if name not in expected:
            raise BundleError(f"{path} holds {name[:80]!r}, which is not part of the run of this network.")
        if (header.dtype.name, header.shape) != expected[name]:
            kind, shape = expected[name]
            raise BundleError(
                f"{name!r} in {path} must be {kind} of shape {shape}, and is {header.dtype} of shape {header.shape}."
            )


def _pack(mask: NDArray[np.bool_], leading: int) -> NDArray[np.uint8]:
    return np.packbits(mask.reshape(*mask.shape[:leading], -1), axis=-1)


def unpacked(packed: NDArray[np.uint8], shape: Shape) -> NDArray[np.bool_]:
    """Booleans (..., *shape) that were packed eight to a byte: (..., bytes)."""
    bits = np.unpackbits(packed, axis=-1, count=math.prod(shape)).view(np.bool_)
    return bits.reshape(*packed.shape[:-1], *shape)
