"""The network that a user names on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cos_export import zoo
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.nir_file.conventions import Conventions, assumptions
from cos_export.nir_file.reader import open_nir
from cos_export.zoo.factory import build_from_factory

__all__ = ["Model", "build_model", "check_conventions", "check_options_of_nir", "is_nir", "load_model"]

# What torch.export.load (torch 2.13) does with a .pt2: weights and constants that the archive marks as pickled
# go through torch.load(weights_only=False) or pickle.loads, sample inputs fall back to the former, and expressions of
# its JSON are evaluated as Python by sympy; operators are looked up by any dotted name under torch.
_NO_PT2 = (
    "{0!r} is refused: loading a .pt2 can run code that is stored in the file (torch.export.load unpickles parts of it "
    "and evaluates its expressions), and nothing a file holds is run here. Give the function that builds the network "
    "as package.module:factory, and its weights with --weights, saved as .safetensors or by "
    "torch.save(model.state_dict(), path)."
)


@dataclass(frozen=True)
class Model:
    """A network with its weights.

    Attributes:
        source: The trained network, in eval mode; or that of a NIR file, which spikes already.
        name: What the user called it.
        weights: The file its weights came from, or None if the factory returned them.
        notes: What was assumed about a NIR file.
    """

    source: nn.Module | SpikingNetwork
    name: str
    weights: Path | None
    notes: tuple[str, ...] = ()

    @property
    def module(self) -> nn.Module:
        """The trained network.

        Raises:
            InputError: It is that of a NIR file, which spikes already.
        """
        if isinstance(self.source, SpikingNetwork):
            raise InputError(f"{self.name} is a network of spikes already; a trained PyTorch module is needed.")
        return self.source


def is_nir(spec: str | Path) -> bool:
    """Whether a network is named by a NIR file."""
    return Path(spec).suffix == ".nir"


def load_model(
    spec: str,
    weights: Path | None = None,
    *,
    levels: int | None = None,
    classes: int | None = None,
    conventions: Conventions | None = None,
) -> Model:
    """The network called `spec`.

    Args:
        spec: A name from the zoo, or `package.module:factory`: a function without arguments (or a module class)
            that returns the network. Modules in the current folder are found. Or a .nir file of integrate-and-fire
            neurons. A .pt2 file of torch.export is refused: loading one can run code that it holds.
        weights: A file with its weights. A zoo network without one gets the weights that are shipped.
        levels: L of a zoo network's activations, that it was trained with; 4 by default.
        classes: Of a zoo network's readout; by default those of the data set that it is meant for.
        conventions: What the user says of a NIR file that does not say it.

    Raises:
        InputError: There is no such network, it cannot be made, or the weights do not fit; or an option is for another
            kind of model.
        NetworkError: A NIR file holds something else than a network of integrate-and-fire neurons.
    """
    if is_nir(spec):
        check_options_of_nir(spec, weights=weights, levels=levels, classes=classes)
        opened = open_nir(spec, conventions)
        notes = (assumptions(spec, opened.assumed),) if opened.assumed else ()
        return Model(opened.network, spec, None, notes)
    check_conventions(spec, conventions)
    module, chosen = build_model(spec, levels=levels, classes=classes), weights
    if chosen is None and spec in zoo.names():
        chosen = zoo.weights_path(spec)
        if levels not in (None, shipped := zoo.entry(spec).levels):
            raise InputError(
                f"The weights that are shipped for {spec!r} were trained with L = {shipped}, and levels is "
                f"{levels}. Leave it out, or give weights that were trained with it."
            )
    if chosen is not None:
        zoo.load_weights(module, chosen)
    return Model(module.eval(), spec, chosen)


def check_conventions(spec: str | Path, conventions: Conventions | None) -> None:
    """Refuses what is said of a NIR file where no NIR file is named.

    Raises:
        InputError: Something is.
    """
    if conventions is not None and conventions.chosen:
        options = ", ".join(f"--{name}" for name in conventions.chosen)
        raise InputError(f"{options} says what a .nir file does not, and {str(spec)!r} is not one. Leave it out.")


def check_options_of_nir(spec: str, **options: object) -> None:
    """Refuses options about a module where a NIR file is named.

    Raises:
        InputError: One of them is not None.
    """
    if given := [name for name, value in options.items() if value is not None]:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{listed} is about a module, and {spec!r} holds a whole network. Leave it out.")


def build_model(spec: str, *, seed: int = 0, levels: int | None = None, classes: int | None = None) -> nn.Module:
    """The network called `spec` with the weights that it is born with.

    Args:
        spec: As for `load_model`.
        seed: Of a zoo network's initial weights; a factory is called with torch's own generator at this seed.
        levels: As for `load_model`.
        classes: As for `load_model`.

    Raises:
        InputError: There is no such network, or it cannot be made.
    """
    if spec in zoo.names():
        return zoo.build(spec, levels=levels, classes=classes, seed=seed)
    if Path(spec).suffix == ".pt2":
        raise InputError(_NO_PT2.format(spec))
    if is_nir(spec):
        raise InputError(f"{spec!r} holds a network that spikes already, and a module is needed here.")
    if ":" in spec:
        for name, given in (("levels", levels), ("classes", classes)):
            if given is not None:
                raise InputError(f"{name} can be chosen for zoo networks only. Set it in the function {spec!r} names.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_from_factory(spec)
    raise InputError(
        f"There is no network {spec!r}. Give a name from the zoo ({', '.join(zoo.names())}), or a function that "
        "returns yours, as package.module:factory."
    )
