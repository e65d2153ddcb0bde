"""Reads trained weights from a file, without unpickling anything, and only if all of them fit."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cos_export.errors import InputError, Notice
from cos_export.reading.weights import check_tensor, read_safetensors, read_torch
from cos_export.wrappers import unwrapped
from cos_export.zoo.key_names import matched, prefix_hint

__all__ = ["load_weights"]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a state dict into `model`, every key of it or none.

    The thresholds of published QCFS and COS checkpoints (`….up`, `….thresh`) are taken for `….threshold`. Where all
    keys are the model's then, the prefixes `module.`, `_orig_mod.`, `model.` and `net.` (of data-parallel training,
    torch.compile, Lightning) are left out and the masks of pruned weights multiplied in, with a `Notice`.

    Args:
        model: What to load into.
        path: A `.safetensors` file, or a `.pth`, `.pt` or `.ckpt` file with a state dict (or a dict that has one under
            "state_dict"), read with weights_only=True.

    Raises:
        InputError: The file is not there or cannot be read, or its keys, shapes or values are not the model's.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file of weights {path}.")
    model = unwrapped(model)
    expected = model.state_dict()
    given, notes = matched(_state(path), expected)
    problems = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in given]
    problems += [f"unexpected: {key} {tuple(given[key].shape)}" for key in given if key not in expected]
    for key in expected:
        if key not in given:
            continue
        if given[key].shape != expected[key].shape:
            problems.append(
                f"wrong shape: {key} is {tuple(given[key].shape)} in the file and {tuple(expected[key].shape)} here"
            )
        elif not bool(torch.isfinite(given[key]).all()):
            problems.append(f"not finite: {key} holds nan or inf")
        elif key.rpartition(".")[2] == "threshold" and not bool((given[key] > 0).all()):
            problems.append(f"not positive: the threshold {key} is {float(given[key].min())}")
    if problems:
        hint = prefix_hint(given, expected)
        listed = "\n  ".join([*_other_classes(given, expected), *([hint] if hint else []), *problems])
        raise InputError(f"The weights in {path} do not fit {type(model).__name__}:\n  {listed}")
    model.load_state_dict(given, strict=True)
    for note in notes:
        warnings.warn(f"{path}: {note}.", Notice, stacklevel=2)


def _other_classes(given: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """A line that says so if the readout, the last matrix of the model, has another number of rows in the file."""
    last = next((key for key in reversed(expected) if expected[key].ndim == 2), None)
    if last is None or last not in given or given[last].ndim != 2:
        return []
    theirs, ours = given[last].shape, expected[last].shape
    if theirs[0] == ours[0] or theirs[1] != ours[1]:
        return []
    fix = f"classes={theirs[0]} (--classes {theirs[0]})"
    return [f"The file has {theirs[0]} classes and the network {ours[0]}: build it with {fix}."]


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".pth", ".pt", ".ckpt"):
        raise InputError(f"Weights are read from .safetensors, .pth, .pt or .ckpt files, and {path} is none of them.")
    content = read_torch(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict of tensors. Save it with torch.save(model.state_dict(), path).")
    return {str(key): check_tensor(path, str(key), value) for key, value in content.items()}
