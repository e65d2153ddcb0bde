"""An ONNX graph of a stranger's: it reads no other file than the one for its arrays beside it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from google.protobuf.message import DecodeError, Message

from cos_export.errors import InputError
from cos_export.reading.arrays_file import beside
from cos_export.reading.limits import MAX_ONNX, MAX_ONNX_TENSOR
from cos_export.reading.plain_file import check_plain_file, open_plain, read_plain

__all__ = ["read_onnx"]

_DEPTH = 8
"""Graphs within graphs. Ours have 1: a loop's body."""

_BLOCK = 2**20
"""Bytes read at once."""


def read_onnx(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, without the numbers of arrays that lie in the file beside it.

    Args:
        path: A regular file, not a link.

    Raises:
        InputError: It is not an ONNX model, refers to data in another file than its own, or holds a constant that is
            not as large as its shape says.
    """
    content = read_plain(path, MAX_ONNX, links=False)
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not an ONNX graph: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path} is not an ONNX graph: it holds no nodes or no outputs.")
    apart = [tensor for tensor in model.graph.initializer if _is_apart(tensor)]
    elsewhere = [tensor for tensor in _tensors(model, 0, str(path)) if _is_apart(tensor)]
    if len(elsewhere) > len(apart):
        hidden = next(tensor.name[:80] for tensor in elsewhere if tensor not in apart)
        raise InputError(f"{path} takes {hidden!r} from another file, which is refused: it is not an initializer.")
    for tensor in _tensors(model, 0, str(path)):
        size = math.prod(max(side, 0) for side in tensor.dims)
        # What lies apart is held against the size of its file.
        if min(tensor.dims, default=0) < 0 or (size > MAX_ONNX_TENSOR and not _is_apart(tensor)):
            name = tensor.name[:80] or "a constant"
            raise InputError(f"{path} claims {size:,} numbers for {name!r}, more than the graph of a bundle holds.")
    if apart:
        _check_arrays(Path(path), apart)
    return model


def _is_apart(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def _check_arrays(path: Path, tensors: list[onnx.TensorProto]) -> None:
    """Refuses arrays that do not lie whole in the file beside a graph, as they were when the graph was written."""
    file = beside(path)
    entries = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in tensors}
    for name, known in entries.items():
        if known.get("location") != file.name:
            raise InputError(
                f"{path} takes {name[:80]!r} from another file, which is refused: arrays lie in {file.name} or nowhere."
            )
    size = check_plain_file(file, links=False)
    places: dict[str, tuple[int, int]] = {}
    for tensor in tensors:
        known, name = entries[tensor.name], tensor.name[:80]
        offset, length = (_whole(known.get(key, ""), path, name) for key in ("offset", "length"))
        if length != _claimed_bytes(tensor, path) or offset + length > size:
            raise InputError(f"{path} says that {name!r} has {length:,} bytes in {file.name}, which it has not.")
        places[tensor.name] = offset, length
    # Many arrays of the same bytes would be far more in memory than on disk.
    if (claimed := sum(length for _, length in places.values())) > size:
        raise InputError(f"{path} says that arrays of {claimed:,} bytes lie in {file.name}, which has {size:,}.")
    with open_plain(file, links=False) as opened:
        for name, (offset, length) in places.items():
            if _digest(opened, offset, length) != entries[name].get("checksum"):
                raise InputError(
                    f"{file} does not hold {name[:80]!r} as {path.name} was written for it. Write both again."
                )


def _digest(file: BinaryIO, offset: int, length: int) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    file.seek(offset)
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def _whole(text: str, path: Path, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InputError(f"{path} says {text[:80]!r} of where {name!r} is, which is not a number of bytes.")
    return int(text)


def _claimed_bytes(tensor: onnx.TensorProto, path: Path) -> int:
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds {tensor.name[:80]!r} of an unknown type: {tensor.data_type}.") from error
    return int(width * math.prod(tensor.dims))


def _tensors(message: Any, depth: int, path: str) -> Iterator[onnx.TensorProto]:
    """Every constant in a message, however it is nested.

    Raises:
        InputError: It is nested too deeply, or holds a text that is not UTF-8.
    """
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
