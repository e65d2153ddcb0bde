"""What commands that look at a network open: a bundle, or a model that is captured first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cos_export.errors import InputError

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from collections.abc import Sequence

    from calibration import PerSampleMethod
    from calibration.choices import Choices
    from cos_export.bundle import Bundle
    from cos_export.commands.network_options import NetworkOptions
    from cos_export.datasets import Dataset
    from cos_export.network import SpikingNetwork
    from cos_export.nir_file.conventions import Conventions
    from cos_export.progress import Progress

__all__ = ["Opened", "Runnable", "open_network", "open_to_run"]


_GOLDEN = 16
"""Images on which the operations of a NIR file that is run as it is are counted."""


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


def open_network(options: NetworkOptions, choices: Choices | None, *, progress: Progress) -> Opened:
    """The network that the options name, and its images.

    Args:
        options: The folder of a bundle or a model as `load_model` takes it, data as `load_dataset` takes it, and what
            the user says of both.
        choices: About a model, or None where the user has not said T.
        progress: Told as it goes on.

    Raises:
        InputError: There is no such network or data set, they do not go together, or T is missing.
    """
    from calibration import method_of
    from calibration.data_parts import data_parts
    from calibration.preparing import prepare
    from calibration.sources import choices_for
    from cos_export.bundle import load
    from cos_export.bundle.data import dataset_for
    from cos_export.datasets import Normalisation
    from cos_export.progress import one_piece
    from cos_export.zoo.model_source import check_conventions

    model, about = options.model, options.about_images
    if Path(model).is_dir():
        check_conventions(model, options.conventions)
        bundle = load(model)
        recorded = method_of(bundle)
        channels = Normalisation.of(about["mean"], about["std"])
        images = dataset_for(bundle, options.data, channels, size=about["size"])
        return Opened(bundle.network, images, recorded.per_sample, recorded.notes)
    if choices is None:
        raise InputError("Say for how many steps, as --steps 4: a bundle knows its own T, and a model does not.")
    loaded = options.loaded()
    choices = choices_for(loaded.source, choices)
    with one_piece(progress, "reading the data"):
        parts = data_parts(loaded.source, options.data, choices, **about)
    captured = prepare(loaded.source, parts, choices, progress=progress).captured
    return Opened(captured, parts.evaluation, notes=loaded.notes)


@dataclass(frozen=True)
class Runnable:
    """A bundle and images for it.

    Attributes:
        bundle: The user's, or one that is made of a NIR file and goes when it has run.
        images: All of the data.
        notes: What was assumed about a NIR file.
    """

    bundle: Bundle
    images: Dataset
    notes: Sequence[str] = ()


@contextmanager
def open_to_run(
    model: str,
    data: str,
    steps: int | None,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None = None,
    conventions: Conventions,
    device: str,
) -> Iterator[Runnable]:
    """A bundle, or a NIR file as it is: targets run bundles, so one is made of it in a temporary folder.

    Args:
        model: The folder of a bundle, or a .nir file.
        data: As `load_dataset` takes it.
        steps: T of a NIR file that does not say it.
        mean: Of each channel.
        std: Of each channel.
        size: That the images of a folder are resized to.
        conventions: What the user says of a NIR file that does not say it.
        device: Where the reference runs.

    Raises:
        InputError: There is no such network or data set, they do not go together, or T is missing or contradicts.
    """
    from calibration import method_of
    from calibration.sources import source_dataset
    from cos_export.bundle import load
    from cos_export.bundle.data import dataset_for
    from cos_export.datasets import Normalisation
    from cos_export.drafts import temporary_folder
    from cos_export.exporting import export
    from cos_export.network import SpikingNetwork, check_steps, with_normalisation_of
    from cos_export.zoo.model_source import check_conventions, is_nir, load_model

    if not is_nir(model):
        check_conventions(model, conventions)
        bundle = load(model)
        if steps not in (None, bundle.steps):
            raise InputError(f"The graph of {model} has {bundle.steps} steps: leave --steps out, or export it again.")
        yield Runnable(bundle, dataset_for(bundle, data, Normalisation.of(mean, std), size=size))
        return
    loaded = load_model(model, conventions=conventions)
    if not isinstance(loaded.source, SpikingNetwork):
        raise InputError(f"{model!r} is not a NIR file.")
    if steps is None and loaded.source.num_timesteps is None:
        raise InputError("Say for how many steps, as --steps 4: the file does not.")
    images = source_dataset(loaded.source, data, "test", mean, std, size=size)
    network = with_normalisation_of(loaded.source, images)
    few = images.first(min(_GOLDEN, len(images)))
    with temporary_folder("run") as folder:
        # The folder itself is locked for as long as it is used, and an export locks the one that it writes to.
        place = folder / "out"
        place.mkdir()
        bundle = export(
            network,
            place / "bundle",
            check_steps(steps, network),
            golden=few,
            calibration=method_of(network).per_sample,
            device=device,
        )
        yield Runnable(bundle, images, loaded.notes)
