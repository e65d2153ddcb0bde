"""Networks that come with the package, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cos_export.errors import InputError
from cos_export.training import Recipe
from cos_export.zoo import digits, resnet
from cos_export.zoo.checkpoints import load_weights

__all__ = ["ZooEntry", "build", "entry", "load_weights", "names", "weights_path"]

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        build: From the number of levels L to the network.
        input_shape: Of one sample, (channels, height, width).
        dataset: The data set that it is for, as `load_dataset` names it, or None if the package has none.
        recipe: How the shipped weights were trained, or None if none are shipped.
    """

    build: Callable[[int], nn.Module]
    input_shape: tuple[int, ...]
    dataset: str | None
    recipe: Recipe | None


_ENTRIES: Mapping[str, ZooEntry] = {
    "digits": ZooEntry(digits.DigitsNet, (1, 8, 8), "digits", digits.RECIPE),
    "resnet20": ZooEntry(resnet.resnet20, (3, 32, 32), None, resnet.RESNET20_RECIPE),
}


def names() -> tuple[str, ...]:
    """What the zoo holds."""
    return tuple(_ENTRIES)


def entry(name: str) -> ZooEntry:
    """What is known of the network called `name`.

    Raises:
        InputError: There is none.
    """
    if name not in _ENTRIES:
        raise InputError(f"There is no network {name!r} in the zoo. It holds {', '.join(_ENTRIES)}.")
    return _ENTRIES[name]


def build(name: str, *, levels: int = 4, seed: int = 0) -> nn.Module:
    """The network called `name`, untrained and in eval mode.

    Args:
        name: One of `names()`.
        levels: L of every QCFS activation.
        seed: Of the initial weights; the global generator is left as it was.

    Raises:
        InputError: There is no such network, or L is below 1.
    """
    found = entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return found.build(levels).eval()


def weights_path(name: str) -> Path:
    """The file of trained weights that the package ships for `name`, to be used with L = 4.

    Raises:
        InputError: There is no such network, or no weights of it are shipped.
    """
    entry(name)
    path = _WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise InputError(f"No weights are shipped for {name!r}. Train it, or give a file with --weights.")
    return path
