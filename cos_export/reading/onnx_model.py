"""An ONNX graph of a stranger's: of one file, which reads no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_ONNX, MAX_ONNX_TENSOR
from cos_export.reading.plain_file import read_plain

__all__ = ["read_onnx"]

_DEPTH = 8
"""Graphs within graphs. Ours have 1: a loop's body."""


def read_onnx(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file.

    Args:
        path: A regular file, not a link.

    Raises:
        InputError: It is not an ONNX model, refers to data in another file, or holds a constant that is not as large
            as its shape says.
    """
    content = read_plain(path, MAX_ONNX, links=False)
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not an ONNX graph: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path} is not an ONNX graph: it holds no nodes or no outputs.")
    for tensor in _tensors(model, 0, str(path)):
        name = tensor.name[:80] or "a constant"
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InputError(
                f"{path} takes {name!r} from another file, which is refused: the graph of a bundle is one file."
            )
        size = 1
        for side in tensor.dims:
            size *= max(side, 0)
        if min(tensor.dims, default=0) < 0 or size > MAX_ONNX_TENSOR:
            raise InputError(f"{path} claims {size:,} numbers for {name!r}, more than the graph of a bundle holds.")
    return model


def _tensors(message: Any, depth: int, path: str) -> Iterator[onnx.TensorProto]:
    """Every constant in a message, however it is nested."""
    if depth > 6 * _DEPTH:
        raise InputError(f"{path} has graphs nested deeper than {_DEPTH}.")
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in (value,) if isinstance(value, Message) else value:
            if isinstance(part, onnx.TensorProto):
                yield part
            elif isinstance(part, Message):
                yield from _tensors(part, depth + 1, path)
