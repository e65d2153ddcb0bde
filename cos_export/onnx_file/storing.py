"""Puts a graph into its file, with the file for its arrays if they need one: checked first, and whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import onnx

from cos_export.atomic_file import atomic_write
from cos_export.freed_memory import give_back_memory
from cos_export.onnx_file.builder import MAX_BYTES, GraphBuilder
from cos_export.onnx_file.external_data import write_arrays
from cos_export.reading.arrays_file import beside
from cos_export.storage import flush

__all__ = ["store"]

Result = TypeVar("Result")


def store(
    path: str | os.PathLike[str],
    builder: GraphBuilder,
    finish: Callable[[str | None], onnx.ModelProto],
    check: Callable[[Path], Result],
    external_above: int,
) -> Result:
    """Writes a graph beside its place, checks it there, and moves it; first of the two the file of its arrays.

    Args:
        path: The file; one that is there is replaced.
        builder: The graph.
        finish: Makes a model of it, with its arrays in the file of that name, or in itself.
        check: Looks at the file before it is moved.
        external_above: Bytes of arrays that the file itself may hold.

    Returns:
        What `check` returns.
    """
    with atomic_write(path) as draft:
        arrays = beside(draft)
        apart = builder.array_bytes > min(external_above, MAX_BYTES)
        draft.write_bytes(finish(arrays.name if apart else None).SerializeToString())
        if apart:
            write_arrays(builder.arrays, arrays)
        result = check(draft)
        give_back_memory(builder.array_bytes)
        if apart:
            flush(arrays)
            arrays.replace(beside(Path(os.path.realpath(path))))
    return result
