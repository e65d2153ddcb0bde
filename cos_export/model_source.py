"""The network that a user names on the command line."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cos_export import zoo
from cos_export.errors import InputError

__all__ = ["Model", "build_model", "load_model"]


@dataclass(frozen=True)
class Model:
    """A network with its weights.

    Attributes:
        module: The network, in eval mode.
        name: What the user called it.
        weights: The file its weights came from, or None if the factory returned them.
    """

    module: nn.Module
    name: str
    weights: Path | None


def load_model(spec: str, weights: Path | None = None) -> Model:
    """The network called `spec`.

    Args:
        spec: A name from the zoo, or `package.module:factory`: a function without arguments (or a module class)
            that returns the network. Modules in the current folder are found.
        weights: A file with its weights. A zoo network without one gets the weights that are shipped.

    Raises:
        InputError: There is no such network, it cannot be made, or the weights do not fit.
    """
    module, chosen = build_model(spec), weights
    if chosen is None and spec in zoo.names():
        chosen = zoo.weights_path(spec)
    if chosen is not None:
        zoo.load_weights(module, chosen)
    return Model(module.eval(), spec, chosen)


def build_model(spec: str, *, seed: int = 0) -> nn.Module:
    """The network called `spec` with the weights that it is born with.

    Args:
        spec: As for `load_model`.
        seed: Of a zoo network's initial weights; a factory is called with torch's own generator at this seed.

    Raises:
        InputError: There is no such network, or it cannot be made.
    """
    if spec in zoo.names():
        return zoo.build(spec, seed=seed)
    if ":" in spec:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _from_factory(spec)
    raise InputError(
        f"There is no network {spec!r}. Give a name from the zoo ({', '.join(zoo.names())}), or a function that "
        "returns yours, as package.module:factory."
    )


def _from_factory(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise InputError(f"{spec!r} cannot be imported: {error}. Run the command where {module_name!r} is.") from error
    except AttributeError as error:
        raise InputError(f"{spec!r} cannot be found: {error}.") from error
    if not callable(factory):
        raise InputError(f"{spec!r} is a {type(factory).__name__}. Name a function that returns the network.")
    try:
        module = factory()
    except TypeError as error:
        raise InputError(f"{spec!r} cannot be called without arguments: {error}.") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{spec!r} returned a {type(module).__name__}, and should return a torch.nn.Module.")
    return module
