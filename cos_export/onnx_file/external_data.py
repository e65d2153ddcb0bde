"""Arrays of an ONNX graph in a file beside it: what a protobuf message, of 2 GiB at most, has no room for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["Arrays", "external_tensors", "write_arrays"]

Arrays = Mapping[str, NDArray]  # type: ignore[type-arg]

LEAST_BYTES = 1024
"""Smaller arrays stay in the graph: shapes and axes are among them, which readers look at."""

_ALIGNMENT = 4096
"""Of each array in the file, so that a runtime may map its pages."""


def external_tensors(arrays: Arrays, file: str) -> dict[str, TensorProto]:
    """Initializers that say where in `file` their numbers are, of all arrays that are not small.

    Args:
        arrays: By name.
        file: Its name, without a folder, as `write_arrays` writes it.
    """
    tensors = {}
    for name, offset in _places(arrays).items():
        value = arrays[name]
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape)
        tensor.data_location = TensorProto.EXTERNAL
        digest = hashlib.sha1(_bytes(value), usedforsecurity=False).hexdigest()
        entries = {"location": file, "offset": offset, "length": value.nbytes, "checksum": digest}
        for key, entry in entries.items():
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(entry)))
        tensors[name] = tensor
    return tensors


def write_arrays(arrays: Arrays, path: Path) -> None:
    """Writes what `external_tensors` points at."""
    with path.open("wb") as file:
        for name, offset in _places(arrays).items():
            file.seek(offset)
            file.write(_bytes(arrays[name]))


def _places(arrays: Arrays) -> dict[str, int]:
    places, end = {}, 0
    for name, value in arrays.items():
        if value.nbytes >= LEAST_BYTES:
            places[name] = end
            end = -(-(end + value.nbytes) // _ALIGNMENT) * _ALIGNMENT
    return places


def _bytes(value: NDArray) -> memoryview:  # type: ignore[type-arg]
    """As ONNX has them: little-endian, the last axis innermost."""
    ordered = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8).data
