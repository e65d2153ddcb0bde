"""The state dict in a file of weights, whatever the checkpoint around it is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_TENSOR_HEADER
from cos_export.reading.plain_file import open_plain
from cos_export.reading.weights import check_tensor, read_safetensors, read_torch

__all__ = ["is_safetensors", "read_state"]

Keys = tuple[str, ...]

_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Where trainings keep the state dict of their network, the likeliest first."""

_NOT_OF_NETWORKS = ("optim", "sched", "scaler")
"""In the names of what a training keeps beside its network."""

_DEPTH = 3
"""How many dictionaries within each other are looked into."""


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str | None]:
    """The state dict in `path`, and a sentence about which was taken where the file has several.

    Args:
        path: A `.safetensors` file, or what torch.save wrote, by whatever name: a state dict, or a dictionary that
            has one under any key. It is read with weights_only=True.

    Raises:
        InputError: The file is not there or cannot be read, holds no state dict, or several under unusual names.
    """
    if is_safetensors(path):
        return read_safetensors(path), None
    content = read_torch(path)
    if _is_state(content):
        return {key: check_tensor(path, key, value) for key, value in content.items()}, None
    found = list(_states(content, ()))
    if not found:
        held = f" It holds {', '.join(map(repr, list(content)[:9]))}." if isinstance(content, dict) and content else ""
        raise InputError(
            f"{path} holds no state dict of tensors.{held} Save it with torch.save(model.state_dict(), path)."
        )
    usual = sorted((keys for keys, _ in found if keys[-1] in _NAMES), key=_rank)
    if len(found) > 1 and not usual:
        raise InputError(
            f"{path} holds {len(found)} state dicts, under {', '.join(_words(keys) for keys, _ in found[:9])}. "
            "Save that of the network alone: torch.save(model.state_dict(), path)."
        )
    taken, state = next(one for one in found if not usual or one[0] == usual[0])
    others = ", ".join(_words(keys) for keys, _ in found[:9] if keys != taken)
    note = f"the weights under {_words(taken)} were taken, and not those under {others}" if others else None
    return {key: check_tensor(path, key, value) for key, value in state.items()}, note


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is called so, or begins as one does: the size of a header of JSON, then the header."""
    if Path(path).suffix == ".safetensors":
        return True
    with open_plain(path) as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_TENSOR_HEADER


def _is_state(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _states(content: object, keys: Keys) -> Iterator[tuple[Keys, dict[str, Tensor]]]:
    """The state dicts within dictionaries, with the keys that lead to them; those of optimizers are left aside."""
    if not isinstance(content, dict) or len(keys) >= _DEPTH:
        return
    for key, value in content.items():
        # An optimizer numbers its parameters, and has tensors for each.
        if not isinstance(key, str) or any(word in key.lower() for word in _NOT_OF_NETWORKS):
            continue
        if _is_state(value):
            yield (*keys, key), value
        else:
            yield from _states(value, (*keys, key))


def _rank(keys: Keys) -> tuple[int, int]:
    return len(keys), _NAMES.index(keys[-1])


def _words(keys: Keys) -> str:
    return " / ".join(repr(key[:80]) for key in keys)
