"""What a graph's metadata says of what goes in and comes out: the normalisation of images, and class names.

input_mean           float32 (1,) or (channels,): the Input takes (x - input_mean) / input_std of pixels x,
input_std            float32 likewise             divided by 255
class_names          a JSON list of text, one for each entry of the readout
left_out             a JSON list of text: what the module does to its logits at its end, and the network does not
readout_shape        a JSON list of whole numbers: the shape that the module gives what the readout has as one axis
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cos_export.datasets import Normalisation
from cos_export.errors import CosExportError, NetworkError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.reading.json_file import parse_json

__all__ = [
    "INPUT_KEYS",
    "input_metadata",
    "read_class_names",
    "read_left_out",
    "read_normalisation",
    "read_readout_shape",
]

INPUT_KEYS = ("input_mean", "input_std", "class_names", "left_out", "readout_shape")


def input_metadata(network: SpikingNetwork) -> dict[str, str | FloatArray]:
    """What is written on the graph: nothing of what the network does not say."""
    entries: dict[str, str | FloatArray] = {}
    if network.normalisation is not None:
        for name, values in network.normalisation.to_dict().items():
            entries[f"input_{name}"] = np.array(values, np.float32)
    if network.class_names is not None:
        entries["class_names"] = json.dumps(network.class_names)
    if network.left_out:
        entries["left_out"] = json.dumps(network.left_out)
    if network.readout_shape is not None:
        entries["readout_shape"] = json.dumps(network.readout_shape)
    return entries


def read_normalisation(metadata: Mapping[str, Any]) -> Normalisation | None:
    """The normalisation that the metadata tells of, or None if it tells of none.

    Raises:
        NetworkError: Half of it is missing, or it is not one.
    """
    stored = {key: metadata[f"input_{key}"] for key in ("mean", "std") if f"input_{key}" in metadata}
    if not stored:
        return None
    if len(stored) == 1:
        raise NetworkError(f"The graph's metadata has input_{next(iter(stored))} alone: mean and std belong together.")
    for key, value in stored.items():
        if np.asarray(value).dtype.kind not in "iuf" or np.ndim(value) > 1:
            raise NetworkError(f"input_{key} in the graph's metadata must be one number, or one for each channel.")
    try:
        return Normalisation(*(tuple(np.atleast_1d(value).tolist()) for value in stored.values()))
    except CosExportError as error:
        raise NetworkError(f"The graph's metadata has a normalisation that cannot be used: {error}") from error


def read_class_names(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names that the metadata tells of, or None if it tells of none.

    Raises:
        NetworkError: They are not a JSON list of text.
    """
    names = _json_list(metadata, "class_names", str, "text")
    return None if names is None else tuple(names)


def read_left_out(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What the metadata tells that a module does to its logits at its end, and the network does not.

    Raises:
        NetworkError: It is not a JSON list of text.
    """
    return tuple(_json_list(metadata, "left_out", str, "text") or ())


def read_readout_shape(metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape that the metadata tells of, or None if it tells of none.

    Raises:
        NetworkError: It is not a JSON list of whole numbers from 1.
    """
    shape = _json_list(metadata, "readout_shape", int, "whole numbers")
    if shape is None:
        return None
    if not shape or any(isinstance(n, bool) or n < 1 for n in shape):
        raise NetworkError("readout_shape in the graph's metadata must be whole numbers from 1.")
    return tuple(shape)


def _json_list(metadata: Mapping[str, Any], key: str, kind: type, words: str) -> list[Any] | None:
    if key not in metadata:
        return None
    text = metadata[key]
    try:
        entries = parse_json(text, f"{key} in the graph's metadata") if isinstance(text, str) else None
    except CosExportError as error:
        raise NetworkError(str(error)) from error
    if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
        raise NetworkError(f"{key} in the graph's metadata must be a JSON list of {words}.")
    return entries
