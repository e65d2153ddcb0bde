"""What of a state dict does not fit a network, in words, each key with the likeliest other name of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import SequenceMatcher

import torch
from torch import Tensor, nn

from cos_export.zoo.key_names import THRESHOLD_NAMES, prefix_hint

__all__ = ["differences", "wrong_values"]

_ALIKE = 0.5
"""The least share of two keys that must agree for one to be shown as the other's nearest."""


def differences(model: nn.Module, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """A line for each key that is missing, unexpected or of another shape, after those that say what to do.

    Args:
        model: The network.
        given: The file's state dict.
        expected: The network's.
    """
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    lines = [*_other_classes(given, expected), *_activations(model, unexpected)]
    lines += filter(None, [prefix_hint(given, expected)])
    near = {key: _nearest(key, expected[key], unexpected, given) for key in missing}
    back = {key: _nearest(key, given[key], missing, expected) for key in unexpected}
    lines += [f"missing: {key} {_shape(expected[key])}{_in(near[key], 'file')}" for key in missing]
    lines += [f"unexpected: {key} {_shape(given[key])}{_in(back[key], 'network')}" for key in unexpected]
    lines += [
        f"wrong shape: {key} is {_shape(given[key])} in the file and {_shape(expected[key])} here"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    return lines


def wrong_values(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """A line for each tensor that holds nan or inf, each threshold that is not positive, and integers for floats.

    Args:
        given: The file's state dict.
        expected: The network's.
    """
    lines = []
    for key, value in given.items():
        if not bool(torch.isfinite(value).all()):
            lines.append(f"not finite: {key} holds nan or inf")
        elif value.numel() > 1 and _whole(value) and key in expected and not _whole(expected[key]):
            lines.append(
                f"integers: {key} is {_type(value)} in the file and {_type(expected[key])} here. Integers of a "
                "quantised network are not its weights without their scales: save the weights before quantisation"
            )
        elif key.rpartition(".")[2] == "threshold" and not bool((value > 0).all()):
            lines.append(f"not positive: the threshold {key} is {float(value.min())}")
    return lines


def _whole(value: Tensor) -> bool:
    return not value.is_floating_point() and not value.is_complex()


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _other_classes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """A line that says so if the readout, the last matrix of the model, has another number of rows in the file."""
    last = next((key for key in reversed(list(expected)) if expected[key].ndim == 2), None)
    if last is None or last not in given or given[last].ndim != 2:
        return []
    theirs, ours = given[last].shape, expected[last].shape
    if theirs[0] == ours[0] or theirs[1] != ours[1]:
        return []
    fix = f"classes={theirs[0]} (--classes {theirs[0]})"
    return [f"The file has {theirs[0]} classes and the network {ours[0]}: build it with {fix}."]


def _activations(model: nn.Module, unexpected: Collection[str]) -> list[str]:
    """A line that says so where the file has thresholds of what are ReLUs in the network."""
    owners = [key.rpartition(".")[0] for key in unexpected if key.rpartition(".")[2] in THRESHOLD_NAMES]
    relus = {path for path, module in model.named_modules() if isinstance(module, nn.ReLU)}
    found = [owner for owner in owners if owner in relus]
    if not found:
        return []
    shown = ", ".join(found[:5]) + (f" and {len(found) - 5} others" if len(found) > 5 else "")
    return [
        f"The file has thresholds of {shown}, where the network has ReLUs: it was trained with QCFS activations. Put "
        "cos_export.QCFS(levels) there, with the L of the training."
    ]


def _nearest(key: str, value: Tensor, others: Collection[str], tensors: Mapping[str, Tensor]) -> str | None:
    """The one of `others` that `key` may be another name of: of the same shape if one is, with the most parts alike."""
    alike = [other for other in others if tensors[other].shape == value.shape]
    parts = key.split(".")
    best, score = None, 0.0
    for other in alike or others:
        by_part = SequenceMatcher(None, parts, other.split("."), autojunk=False).ratio()
        by_letter = SequenceMatcher(None, key, other, autojunk=False).quick_ratio()
        if (by_part + by_letter) / 2 > score:
            best, score = other, (by_part + by_letter) / 2
    return best if score >= _ALIKE or (best is not None and len(alike) == 1) else None


def _in(near: str | None, where: str) -> str:
    return f"; nearest in the {where}: {near}" if near is not None else ""


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))
