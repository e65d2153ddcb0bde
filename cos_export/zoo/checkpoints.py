"""Reads trained weights from a file, without unpickling anything, and only if all of them fit."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import Tensor, nn

from cos_export.errors import InputError, Notice
from cos_export.training import restored_swapped
from cos_export.user_code import user_code
from cos_export.wrappers import unwrapped
from cos_export.zoo.differences import differences, wrong_values
from cos_export.zoo.key_names import complete, matched
from cos_export.zoo.state_files import read_state

__all__ = ["load_weights"]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a state dict into `model`, every key of it or none.

    What `load_state_dict(strict=True)` takes is taken, and a state dict without batch norm's counters. The ReLUs
    that `cos-export train --swap-activations` had made QCFS are made so again. The thresholds of published QCFS, COS
    and SRP checkpoints (`….up`, `….thresh`) are taken for `….threshold`. Where all keys are the model's then, the
    prefixes `module.`, `_orig_mod.`, `model.` and `net.` (of data-parallel training, torch.compile, Lightning) are
    left out and the masks of pruned weights multiplied in, with a `Notice`.

    Args:
        model: What to load into.
        path: A `.safetensors` file, or what torch.save wrote (.pth, .pt, .th, .ckpt, .bin, .pth.tar, ...): a state
            dict, or a dictionary that has one under any key. It is read with weights_only=True.

    Raises:
        InputError: The file is not there or cannot be read, or its keys, shapes or values are not the model's. Every
            key that does not fit is named, with the nearest one.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file of weights {path}.")
    model = unwrapped(model)
    held, taken = read_state(path)
    with restored_swapped(model, path):
        notes = _fill(model, path, held)
    for note in filter(None, [taken, *notes]):
        warnings.warn(f"{path}: {note}.", Notice, stacklevel=2)


def _fill(model: nn.Module, path: Path, held: dict[str, Tensor]) -> tuple[str, ...]:
    """Loads `held` under the names of the model, and says what was done to it."""
    expected = model.state_dict()
    given, notes = matched(held, expected)
    problems = wrong_values(given, expected)
    if problems:
        problems = differences(model, given, expected) + problems
    elif (failure := _load(model, given, expected)) is not None:
        problems = differences(model, given, expected) or [failure]
    if problems:
        raise InputError(f"The weights in {path} do not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    return notes


def _load(model: nn.Module, given: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """Loads the state if torch takes it, hooks of the model's own included. If not, the model is left as it was.

    Returns:
        What torch says of it, or None if it is loaded.
    """
    filled = {key: given.get(key, value) for key, value in expected.items()} if complete(given, expected) else given
    before = {key: value.clone() for key, value in expected.items()}
    try:
        with user_code(f"{type(model).__name__}.load_state_dict fails"):
            model.load_state_dict(filled, strict=True)
    except InputError as error:
        model.load_state_dict(before, strict=True)
        # What does not fit is named by torch in an error of just this type.
        if type(error.__cause__) is RuntimeError:
            return str(error.__cause__)
        raise
    return None
