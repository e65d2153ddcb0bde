"""What a graph's metadata says of what goes in and comes out: the normalisation of images, and class names.

input_mean           float32 (1,) or (channels,): the Input takes (x - input_mean) / input_std of pixels x,
input_std            float32 likewise             divided by 255
class_names          a JSON list of text, one for each entry of the readout
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

__all__ = ["INPUT_KEYS", "input_metadata", "read_class_names", "read_normalisation"]

INPUT_KEYS = ("input_mean", "input_std", "class_names")


def input_metadata(network: SpikingNetwork) -> dict[str, str | FloatArray]:
    """What is written on the graph: nothing of what the network does not say."""
    entries: dict[str, str | FloatArray] = {}
    if network.normalisation is not None:
        for name, values in network.normalisation.to_dict().items():
            entries[f"input_{name}"] = np.array(values, np.float32)
    if network.class_names is not None:
        entries["class_names"] = json.dumps(network.class_names)
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
    if "class_names" not in metadata:
        return None
    text = metadata["class_names"]
    try:
        names = parse_json(text, "class_names in the graph's metadata") if isinstance(text, str) else None
    except CosExportError as error:
        raise NetworkError(str(error)) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NetworkError("class_names in the graph's metadata must be a JSON list of text.")
    return tuple(names)
