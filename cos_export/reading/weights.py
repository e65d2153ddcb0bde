"""Tensors from files of strangers: .safetensors, and what torch.save wrote, of which nothing is run."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cos_export.errors import InputError
from cos_export.reading.json_file import parse_json
from cos_export.reading.limits import MAX_TENSOR_HEADER
from cos_export.reading.pickled import MOST_INSTRUCTION_BYTES, check_pickle, check_pickles
from cos_export.reading.plain_file import check_plain_file, open_plain
from cos_export.reading.zip_archive import read_member, zip_directory

__all__ = ["check_tensor", "read_safetensors", "read_safetensors_note", "read_torch"]

_TYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)
"""What a network's state is made of."""


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, on the CPU.

    Raises:
        InputError: It is not such a file, is damaged, or holds other than plain numbers.
    """
    with _safetensors(path) as file:
        tensors: dict[str, Tensor] = {}
        for name in file.keys():  # noqa: SIM118 - it is not a mapping
            tensors[str(name)] = check_tensor(path, str(name), file.get_tensor(name))
    return tensors


def read_safetensors_note(path: str | os.PathLike[str], key: str) -> Any:
    """The JSON that a `.safetensors` file has under `key` in its header; None if it has nothing there.

    Raises:
        InputError: It is not such a file, or what is there is not JSON within the limits.
    """
    with _safetensors(path) as file:
        text = (file.metadata() or {}).get(key)
    return None if text is None else parse_json(text, f"{key!r} in {path}")


def read_torch(path: str | os.PathLike[str]) -> object:
    """What torch.save wrote to `path`: with weights_only, so that nothing in it is run, and on the CPU.

    An archive of torch's is stored, not compressed, so its content is no larger than the file. What it would build is
    worked out first (`pickled`).

    Raises:
        InputError: It is not such a file, is damaged, holds other than plain values, or more than a state dict does.
    """
    with open_plain(path) as file:
        if file.read(4) == b"PK\x03\x04":
            with zip_directory(file, str(path), "an archive of torch.save") as archive:
                for member in archive.infolist():
                    if member.compress_type or member.compress_size != member.file_size or member.flag_bits & 0x1:
                        raise InputError(f"{path} has compressed or encrypted parts, which torch.save does not write.")
                    # torch finds its own under data.pkl, in capitals as well.
                    if member.filename.lower().endswith(".pkl"):
                        check_pickle(read_member(archive, member, MOST_INSTRUCTION_BYTES, str(path)), str(path))
        else:
            check_pickles(file, str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        other = re.search(r"GLOBAL ([\w.]{1,120})", str(error))
        held = f": it holds {other[1]}, which could be read only by running code that the file names" if other else ""
        raise InputError(
            f"{path} cannot be read as plain weights ({type(error).__name__}){held}. It must hold a "
            "state dict of tensors and nothing else but numbers and text, for nothing in it is run: "
            "torch.save(model.state_dict(), path)."
        ) from error


def check_tensor(path: str | os.PathLike[str], name: str, value: Tensor) -> Tensor:
    """`value`, the tensor called `name` in a file, if it is a dense one of plain numbers.

    Raises:
        InputError: It is sparse, quantised, nested, complex, of a type of less than a byte or without data.
    """
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
        raise InputError(f"{name[:80]!r} in {path} is not a dense tensor of numbers.")
    if value.dtype not in _TYPES:
        raise InputError(f"{name[:80]!r} in {path} is of type {value.dtype}, and must hold plain numbers.")
    return value


@contextmanager
def _safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    size = check_plain_file(path)
    with open_plain(path) as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, MAX_TENSOR_HEADER):
        raise InputError(f"{path} cannot be read as safetensors: its header would have {header:,} bytes.")
    try:
        with safe_open(path, "pt") as opened:
            yield opened
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
