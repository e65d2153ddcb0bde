"""Networks that come with the package, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cos_export.bounds import LARGEST_SEED, MOST_CLASSES
from cos_export.errors import InputError
from cos_export.training import Recipe
from cos_export.whole_number import whole_number
from cos_export.zoo import digits, resnet, vgg
from cos_export.zoo.checkpoints import load_weights
from cos_export.zoo.wide_recipe import WIDE_RECIPE

__all__ = ["ZooEntry", "build", "entry", "load_weights", "names", "weights_path"]

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        build: From the number of levels L, or None for ReLUs, and of classes to the network.
        input_shape: Of one sample, (channels, height, width).
        dataset: The data set that it is for, as `load_dataset` names it, or None if the package has none.
        recipe: How it is trained, or None if nothing is known of it. The shipped weights were, unless their header
            says that they started from others.
        classes: Of the readout, unless others are asked for.
        levels: L of every activation, unless another is asked for; None for a network of ReLUs, which have none.
    """

    build: Callable[[int | None, int], nn.Module]
    input_shape: tuple[int, ...]
    dataset: str | None
    recipe: Recipe | None
    classes: int = 10
    levels: int | None = 4


_CIFAR, _IMAGENET = (3, 32, 32), (3, 224, 224)

_ENTRIES: Mapping[str, ZooEntry] = {
    "digits": ZooEntry(digits.DigitsNet, (1, 8, 8), "digits", digits.RECIPE),
    "resnet20": ZooEntry(resnet.resnet20, _CIFAR, None, resnet.RESNET20_RECIPE),
    "vgg9": ZooEntry(vgg.vgg9, _CIFAR, None, vgg.VGG9_RECIPE),
    "resnet20-relu": ZooEntry(resnet.resnet20, _CIFAR, None, resnet.RESNET20_RECIPE, levels=None),
    "vgg9-relu": ZooEntry(partial(vgg.vgg9, max_pool=True), _CIFAR, None, vgg.VGG9_RECIPE, levels=None),
    "vgg16": ZooEntry(vgg.vgg16, _CIFAR, None, WIDE_RECIPE),
    "resnet18": ZooEntry(resnet.resnet18, _CIFAR, None, WIDE_RECIPE),
    "resnet34": ZooEntry(resnet.resnet34, _CIFAR, None, WIDE_RECIPE),
    "vgg16-imagenet": ZooEntry(partial(vgg.vgg16, side=224), _IMAGENET, None, None, 1000),
    "resnet18-imagenet": ZooEntry(partial(resnet.resnet18, large=True), _IMAGENET, None, None, 1000),
    "resnet34-imagenet": ZooEntry(partial(resnet.resnet34, large=True), _IMAGENET, None, None, 1000),
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


def build(name: str, *, levels: int | None = None, classes: int | None = None, seed: int = 0) -> nn.Module:
    """The network called `name`, untrained and in eval mode.

    Args:
        name: One of `names()`.
        levels: L of every QCFS activation, 4 by default; a network of ReLUs has none.
        classes: Of the readout; by default those of the data set that the network is meant for.
        seed: Of the initial weights; the global generator is left as it was.

    Raises:
        InputError: There is no such network, L is below 1 or the network has ReLUs, or there are fewer than 2 classes.
    """
    found = entry(name)
    classes = found.classes if classes is None else classes
    if levels is not None and found.levels is None:
        raise InputError(
            f"levels is {levels}, and {name!r} has ReLUs, which have no levels. Leave it out, or make them QCFS with "
            "train --swap-activations."
        )
    levels = found.levels if levels is None else levels
    classes = whole_number("classes", classes, 2, MOST_CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_number("seed", seed, 0, LARGEST_SEED))
        return found.build(levels, classes).eval()


def weights_path(name: str) -> Path:
    """The file of trained weights that the package ships for `name`, to be used with the entry's own L.

    Raises:
        InputError: There is no such network, or no weights of it are shipped.
    """
    entry(name)
    path = _WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise InputError(f"No weights are shipped for {name!r}. Train it, or give a file with --weights.")
    return path
