"""The state of a long computation in a .safetensors, which a digest of its own tells from a damaged one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cos_export.errors import InputError
from cos_export.reading.weights import read_safetensors, read_safetensors_note

__all__ = ["read_state_file", "state_digest"]


def state_digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A hash of all that a state holds: its JSON but for "digest", and its tensors with names, types and shapes."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({key: about[key] for key in about if key != "digest"}, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}/{value.dtype}/{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state_file(path: Path, kind: str, form: str, away: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What was kept, as JSON and as tensors.

    Args:
        path: A .safetensors with JSON under "state" in its header.
        kind: What it is the state of, in words.
        form: What its JSON has as "format".
        away: What to do if it cannot be used, as a sentence.

    Raises:
        InputError: It cannot be read, is of another format, or is not what was written.
    """
    try:
        about, tensors = read_safetensors_note(path, "state"), read_safetensors(path)
    except InputError as error:
        raise InputError(f"{path} cannot be read as the state of a {kind}: {error} {away}") from error
    if not isinstance(about, dict) or about.get("format") != form:
        raise InputError(f"{path} is not the state of a {kind}, or of another version of cos-export. {away}")
    digest = state_digest(about, tensors)
    if about.pop("digest", digest) != digest:
        raise InputError(f"{path} is damaged: it is not what was written as the state of a {kind}. {away}")
    return about, tensors
