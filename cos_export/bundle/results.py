"""What passes between a bundle and a runtime that this package does not know: inputs to run, and what came of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.bundle.folder import Bundle
from cos_export.bundle.golden import unpacked, write_arrays
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.reading.npy_header import ArrayHeader
from cos_export.reading.npz import NpzReader, open_npz
from cos_export.simulation.fixed_point import quantise_input
from cos_export.simulation.trace import Recording, Trace
from cos_export.whole_number import whole_number

__all__ = ["golden_samples", "read_results", "write_inputs"]

_SAMPLES = "samples"
"""The array that says which of the golden inputs were run, where it was not all of them."""

_ABOUT_INPUTS = ("images", "integers", "labels", "mean", "std", "rho", "steps", _SAMPLES)
"""Arrays of the golden run, or of `write_inputs`, that a runtime may hand back beside its own."""

_LISTED = 5
"""Names in a message."""


def write_inputs(bundle: Bundle, path: str | os.PathLike[str], samples: int | None = None) -> tuple[str, ...]:
    """Writes what a runtime needs beside the network to do the golden run.

    The archive holds

        images          (samples, ...) float32, as the Input takes them, held for all steps
        integers        likewise of int8 or uint8, of a network of integers: what it makes of the images
        steps           T
        samples         which of the golden inputs they are, from 0, where they are not all
        labels          (samples,) class numbers, if they are known
        mean, std       what pixels / 255 were normalised with to become images, if they were
        v_init/<layer>  (samples, ...) float32, of a per-sample method: in place of the layer's own
        silent/<layer>  (samples, ...) bool, likewise

    Args:
        bundle: Whose golden inputs they are.
        path: The .npz.
        samples: How many, from the first on; by default all.

    Returns:
        The names of the arrays.

    Raises:
        BundleError: The bundle is damaged.
        InputError: There are not so many golden inputs; or there is no such folder, or it may not be written.
    """
    network, golden = bundle.network, bundle.golden
    chosen = None if samples is None else np.arange(whole_number("samples", samples, 1, len(golden.images)))
    if chosen is not None:
        golden = golden.part(chosen.tolist())
    arrays: dict[str, NDArray[Any]] = {"images": golden.images, "steps": np.asarray(golden.trace.steps)}
    if chosen is not None:
        arrays[_SAMPLES] = chosen
    if network.quantisation is not None:
        integers = quantise_input(torch.from_numpy(golden.images), network.quantisation).numpy()
        arrays["integers"] = integers.astype(np.int8 if network.quantisation.input_minimum < 0 else np.uint8)
    if golden.labels is not None:
        arrays["labels"] = golden.labels
    if network.normalisation is not None:
        arrays["mean"] = np.array(network.normalisation.mean, np.float32)
        arrays["std"] = np.array(network.normalisation.std, np.float32)
    if golden.trace.states is not None:
        arrays |= {f"v_init/{name}": value for name, value in golden.trace.states.v_init.items()}
        arrays |= {f"silent/{name}": value for name, value in golden.trace.states.silent.items()}
    write_arrays(Path(path), arrays.items())
    return tuple(arrays)


def golden_samples(path: str | os.PathLike[str], bundle: Bundle) -> tuple[int, ...] | None:
    """Which of a bundle's golden inputs a runtime has run, as its file says in `samples`: numbers from 0, each once.

    Returns:
        The numbers, in the order of the file's samples; None if it does not say, and all must have been run.

    Raises:
        InputError: The file is not an .npz archive, or `samples` in it does not list golden inputs of the bundle.
    """
    with open_npz(path) as archive:
        if _SAMPLES not in archive.names:
            return None
        header, most = archive.header(_SAMPLES), len(bundle.golden.images)
        if header.dtype.kind not in "iu" or len(header.shape) != 1 or not 1 <= header.shape[0] <= most:
            raise InputError(
                f"{_SAMPLES!r} in {path} must be a list of 1 to {most} integers, which of the golden inputs were run, "
                f"and is {header.dtype} of shape {header.shape}."
            )
        numbers = tuple(int(number) for number in archive.read(_SAMPLES))
    if len(set(numbers)) < len(numbers) or not all(0 <= number < most for number in numbers):
        raise InputError(
            f"{_SAMPLES!r} in {path} must list which of the golden inputs were run, each once, as numbers from 0 to "
            f"{most - 1}, and is {_some(numbers)}."
        )
    return numbers


def read_results(path: str | os.PathLike[str], network: SpikingNetwork, steps: int, samples: int) -> Trace:
    """Reads what a runtime has computed for a network.

    The archive holds `logits`, (steps, samples, classes) of floats, entry t - 1 the mean readout of the first t steps,
    and for each layer `spikes/<layer>` or `<layer>`: (steps, samples, ...) of 0 and 1 in any plain type, or packed
    eight to a byte along the flattened neurons, (steps, samples, bytes) of uint8 with the first neuron in the highest
    bit, as in golden.npz. Its own inputs may be in it, too, and are not read.

    Every header is checked before an array is read.

    Args:
        path: The .npz.
        network: What was run.
        steps: T.
        samples: How many inputs were.

    Raises:
        InputError: It is not such an archive; the message names the array, and what it should be.
    """
    with open_npz(path) as archive:
        headers = {name: archive.header(name) for name in archive.names}
        keys = _keys(path, network, headers)
        _check_logits(path, headers["logits"], (steps, samples, *network.output_shape))
        recording = Recording(network, samples, steps)
        for layer, key in keys.items():
            spikes = _spikes(path, archive, key, (steps, samples, *network.neurons[layer].shape))
            recording.spikes.add(layer, spikes)
        recording.add(Trace(np.asarray(archive.read("logits"), np.float32)))
    return recording.trace()


def _keys(path: str | os.PathLike[str], network: SpikingNetwork, headers: Mapping[str, ArrayHeader]) -> dict[str, str]:
    """The array of each layer."""
    keys: dict[str, str] = {}
    missing = []
    for layer in network.layers:
        names = [f"spikes/{layer}"] if layer in ("logits", *_ABOUT_INPUTS) else [f"spikes/{layer}", layer]
        spelled = [key for key in names if key in headers]
        if len(spelled) > 1:
            raise InputError(f"{path} holds the spikes of layer {layer!r} twice, as {spelled[0]!r} and {spelled[1]!r}.")
        if spelled:
            keys[layer] = spelled[0]
        else:
            missing.append(f"spikes/{layer}")
    if "logits" not in headers:
        missing.append("logits")
    if missing:
        raise InputError(
            f"{path} lacks {_some(missing)}. Save the logits of every step as 'logits', and the spikes of every layer "
            "by its name: `cos-export golden` lists them."
        )
    known = {"logits", *_ABOUT_INPUTS, *keys.values()}
    kinds = tuple(f"{kind}/{layer}" for kind in ("v_init", "silent") for layer in network.layers)
    unknown = [name for name in headers if name not in known and name not in kinds]
    if unknown:
        raise InputError(f"{path} holds {_some(unknown)}, and the network has no layer of that name.")
    return keys


def _some(names: Sequence[str | int]) -> str:
    shown = ", ".join(repr(name[:80]) if isinstance(name, str) else str(name) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def _check_logits(path: str | os.PathLike[str], header: ArrayHeader, shape: tuple[int, ...]) -> None:
    if header.dtype.kind != "f" or header.shape != shape:
        raise InputError(
            f"'logits' in {path} must be floats of shape {shape}, and is {header.dtype} of shape {header.shape}. If "
            f"some of the golden inputs were run and not all {shape[1]}, {_SAMPLES!r} must list them, from 0."
        )


def _spikes(path: str | os.PathLike[str], archive: NpzReader, key: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The spikes of one layer, as booleans where they are 0 and 1."""
    header = archive.header(key)
    packed = (*shape[:2], (math.prod(shape[2:]) + 7) // 8)
    if header.shape != shape and (header.shape != packed or header.dtype != np.uint8):
        raise InputError(
            f"{key[:80]!r} in {path} must be of shape {shape}, or uint8 of shape {packed} with eight spikes to a byte, "
            f"and is {header.dtype} of shape {header.shape}."
        )
    values = archive.read(key)
    # One neuron fills a byte as well as an array: packed, its spike is the highest bit.
    if header.shape != shape or (header.shape == packed and header.dtype == np.uint8 and values.max(initial=0) == 128):
        return unpacked(values, shape[2:])
    plain = values.dtype == np.bool_ or bool(((values == 0) | (values == 1)).all())
    return values.astype(np.bool_) if plain else values
