"""What commands that look at a network open: a bundle, or a model that is captured first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cos_export.errors import InputError

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Sequence

    from calibration import PerSampleMethod
    from calibration.choices import Choices
    from cos_export.datasets import Dataset
    from cos_export.network import SpikingNetwork
    from cos_export.progress import Progress

__all__ = ["Opened", "open_network"]


@dataclass(frozen=True)
class Opened:
    """A network and images that it was not made with.

    Attributes:
        network: Of a bundle as it is, of a model as it is captured.
        images: All of the data, or of a model's those that are not calibrated on.
        calibration: The per-sample method of a bundle.
        notes: What is not known of a bundle.
    """

    network: SpikingNetwork
    images: Dataset
    calibration: PerSampleMethod | None = None
    notes: Sequence[str] = ()


def open_network(
    model: str,
    data: str,
    choices: Choices | None,
    *,
    weights: Path | None,
    classes: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    progress: Progress,
) -> Opened:
    """The network that is called `model`, and its images.

    Args:
        model: The folder of a bundle, or a model as `load_model` takes it.
        data: As `load_dataset` takes it.
        choices: About a model, or None where the user has not said T.
        weights: Of a model.
        classes: Of a model of the zoo.
        mean: Of each channel.
        std: Of each channel.
        progress: Told as it goes on.

    Raises:
        InputError: There is no such network or data set, they do not go together, or T is missing.
    """
    from calibration import method_of
    from calibration.data_parts import data_parts
    from calibration.preparing import prepare
    from cos_export.bundle import load
    from cos_export.bundle.data import dataset_for
    from cos_export.datasets import Normalisation
    from cos_export.zoo.model_source import load_model

    if Path(model).is_dir():
        bundle = load(model)
        recorded = method_of(bundle)
        images = dataset_for(bundle, data, Normalisation.of(mean, std))
        return Opened(bundle.network, images, recorded.per_sample, recorded.notes)
    if choices is None:
        raise InputError("Say for how many steps, as --steps 4: a bundle knows its own T, and a model does not.")
    module = load_model(model, weights, levels=choices.levels, classes=classes).module
    parts = data_parts(module, data, choices, mean=mean, std=std)
    return Opened(prepare(module, parts, choices, progress=progress).captured, parts.evaluation)
