"""Swaps again what was swapped before weights were trained, as their file says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.reading.weights import read_safetensors_note
from cos_export.training.functional_relus import FUNCTIONAL_RELUS, intercept, intercepted, release

__all__ = ["restored_swapped", "swapped_before"]

_MOST_CALLS = 10_000
"""A file that names more is not ours."""


@contextmanager
def restored_swapped(model: nn.Module, path: str | Path) -> Iterator[None]:
    """Swaps the ReLUs of `model` that were swapped before the weights in `path` were trained, so that those fit.

    The header of a checkpoint that `cos-export train --swap-activations` wrote says which, and with what L. A model
    that holds QCFS there already, and a file that says nothing of it, are left alone. If the code inside raises an
    InputError, the model is as it was.

    Args:
        model: The network as its factory builds it, changed in place.
        path: A `.safetensors` file of weights.

    Raises:
        InputError: The file names an activation that the model does not have, or has no place for.
    """
    before, new = {part: dict(part._modules) for part in model.modules()}, not intercepted(model)
    try:
        _restore(model, Path(path))
        yield
    except InputError:
        if new:
            release(model)
        for part, children in before.items():
            part._modules.clear()
            part._modules.update(children)
        raise


def swapped_before(path: str | Path) -> dict[str, Any]:
    """What the header of a file of weights says was swapped: the header of a training that starts from it must, too.

    Args:
        path: A file of weights.

    Returns:
        `swapped` and `levels` as `save_checkpoint` was given them, or nothing.
    """
    note = _training_note(Path(path))
    return {key: note["start"][key] for key in ("swapped", "levels")} if _swapped_paths(note) else {}


def _restore(model: nn.Module, path: Path) -> None:
    note = _training_note(path)
    called = _called(note)
    names = {name for name, _ in called}
    if called and not intercepted(model):
        intercept(model, [(name, QCFS(levels) if name else None) for name, levels in called])
    for name, levels in _swapped_paths(note):
        if name in names:
            continue
        parent, _, child = name.rpartition(".")
        try:
            place = model.get_submodule(parent)
            child_module = place.get_submodule(child)
        except AttributeError as error:
            raise InputError(
                f"{path} was trained with a QCFS at {name!r}, and {type(model).__name__} has no module there."
            ) from error
        if isinstance(child_module, nn.ReLU):
            setattr(place, child, QCFS(levels))


def _training_note(path: Path) -> dict[str, Any]:
    """What a checkpoint's header says of its training, or nothing."""
    if path.suffix != ".safetensors":
        return {}
    try:
        note = read_safetensors_note(path, "training")
    except InputError:
        # Whether it is a file of weights at all is for the loader to say.
        return {}
    return note if isinstance(note, dict) else {}


def _called(note: dict[str, Any]) -> list[tuple[str, int]]:
    """(module path or "", L) of each call of a ReLU function, in order, as `save_checkpoint` writes it."""
    held = note.get(FUNCTIONAL_RELUS)
    if not isinstance(held, list) or len(held) > _MOST_CALLS:
        return []
    whole = all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and type(one[1]) is int and one[1] >= 0
        for one in held
    )
    return [(name, levels) for name, levels in held] if whole else []  # Else not our header.


def _swapped_paths(note: dict[str, Any]) -> list[tuple[str, int]]:
    """(module path, L) of each activation that a checkpoint's header says was swapped."""
    start = note.get("start")
    swapped, levels = (start.get("swapped"), start.get("levels")) if isinstance(start, dict) else (None, None)
    if not isinstance(swapped, dict) or type(levels) is not int or levels < 1:
        return []  # Not our header.
    return [(str(name), levels) for name in swapped]
