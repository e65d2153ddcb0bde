"""Trained weights in a file that says how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from cos_export.atomic_file import atomic_write, check_file_destination
from cos_export.errors import InputError
from cos_export.training.functional_relus import FUNCTIONAL_RELUS, record
from cos_export.training.result import TrainingResult
from cos_export.training.state import state_path
from cos_export.wrappers import unwrapped

__all__ = ["check_checkpoint_destination", "save_checkpoint"]


def check_checkpoint_destination(path: str | Path) -> None:
    """Refuses, before any training, a path that `save_checkpoint` could not write to.

    Raises:
        InputError: It does not end in .safetensors, its folder does not exist or may not be written, or something
            else than a file is there.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"Weights are written as .safetensors, and {path} ends otherwise.")
    check_file_destination(path)
    check_file_destination(state_path(path))


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    result: TrainingResult,
    *,
    name: str,
    start: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the weights as safetensors, with the recipe and the accuracy in the file's header.

    The header says besides which modules `swap_activations` put in the place of functions. The file is there whole or
    not at all. The state that the training would have gone on from (`state_path`) is removed, for it is done.

    Args:
        model: The trained network; of a data-parallel or compiled one, what is inside.
        path: Where to; the folder must exist.
        result: What `train` returned.
        name: The network's name.
        start: What a fine-tuning started from, as JSON: for one, the file of weights and what `swap_activations`
            did. None if the weights were random.

    Raises:
        InputError: The file cannot be written there, or `start` is not JSON.
    """
    check_checkpoint_destination(path)
    path = Path(path)
    trained: dict[str, Any] = {"model": name, "recipe": result.recipe.to_dict(), "test_accuracy": result.test_accuracy}
    if result.autocast is not None:
        trained["autocast"] = result.autocast
    if calls := record(unwrapped(model)):
        trained[FUNCTIONAL_RELUS] = calls
    if start is not None:
        trained["start"] = dict(start)
    try:
        # One key only: safetensors writes several in an order that changes from run to run.
        header = {"training": json.dumps(trained, sort_keys=True, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise InputError(f"What the training started from cannot be written as JSON: {error}") from error
    # Copies, for safetensors refuses tensors that share memory, as an activation under two names does.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in unwrapped(model).state_dict().items()}
    with atomic_write(path) as draft:
        draft.write_bytes(save(state, metadata=header))
    state_path(path).unlink(missing_ok=True)
    return path
