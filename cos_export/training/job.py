"""A training as a user orders it: a network by name, data by name, and the files that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from cos_export import zoo
from cos_export.bundle.folder import sha256_of
from cos_export.datasets import folder_sizes, is_named, load_dataset
from cos_export.errors import InputError
from cos_export.processes import is_main
from cos_export.progress import Progress, one_piece, silent
from cos_export.training import (
    Recipe,
    TrainingResult,
    check_checkpoint_destination,
    check_curve_destination,
    fine_tuning,
    save_checkpoint,
    save_learning_curve,
    state_path,
    swap_activations,
    swapped_before,
    train,
)
from cos_export.zoo.model_source import build_model

__all__ = ["TrainingJob", "run_training"]

_SWAP_SAMPLES = 512


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what and how.

    Attributes:
        model: A zoo name or package.module:factory.
        out: Where to write the weights; the learning curve is drawn beside it, as .png.
        data: What to train on, or None for what the zoo network is for.
        test_data: What to measure on, or None for the test part of a named data set.
        weights: Weights to start from, or None.
        swapped: Whether every ReLU becomes a QCFS first.
        levels: L, or None for what the network has.
        classes: Of a zoo network's readout, or None for its usual ones.
        changes: Attributes of the recipe that are not to be the zoo's.
        mean: Of each channel, to be subtracted.
        std: Of each channel, to be divided by.
        size: (height, width) that the images of folders are resized to.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model: str
    out: Path
    data: str | None = None
    test_data: str | None = None
    weights: Path | None = None
    swapped: bool = False
    levels: int | None = None
    classes: int | None = None
    changes: Mapping[str, object] = field(default_factory=dict)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: tuple[int, int] | None = None
    device: str = "auto"


def run_training(job: TrainingJob, *, progress: Progress = silent) -> tuple[TrainingResult, Path]:
    """Trains, and writes the weights with the recipe in the header, and the learning curve.

    Killed at any moment, the same job goes on from the last whole epoch, to the same weights. Several processes share
    every batch, and the main one writes.

    Returns:
        What came of it, and where the curve is.

    Raises:
        InputError: There is no such network or data, something does not fit, or a file cannot be written.
    """
    check_checkpoint_destination(job.out)
    check_curve_destination(job.out.with_suffix(".png"))
    known = zoo.entry(job.model) if job.model in zoo.names() else None
    source = job.data or (known.dataset if known else None)
    if source is None:
        raise InputError("Say what to train on with --data.")
    usual = known.recipe if known and known.recipe else Recipe(epochs=30, learning_rate=0.1, batch_size=128)
    usual = fine_tuning(usual) if job.swapped else usual
    recipe = Recipe(**asdict(usual) | dict(job.changes))
    read = partial(load_dataset, mean=job.mean, std=job.std)
    built_levels = None if job.swapped else job.levels
    module = build_model(job.model, seed=recipe.seed, levels=built_levels, classes=job.classes)
    measured = job.test_data or (source if is_named(source) else None)
    sizes = folder_sizes(job.size, source, measured)
    with one_piece(progress, "reading the data"):
        fitted = read(source, "train", size=sizes[0])
        test = None if measured is None else read(measured, "test", size=sizes[1])
    start: dict[str, object] = {}
    marks: dict[str, object] = {}
    if job.weights is not None:
        zoo.load_weights(module, job.weights)
        start |= {"weights": job.weights.name, **swapped_before(job.weights)}
        # A file of the same name may hold other weights, and one of another name the same.
        marks["weights"] = sha256_of(job.weights)
    if job.swapped:
        levels = job.levels or 4
        start |= {"swapped": swap_activations(module, fitted.images[:_SWAP_SAMPLES], levels), "levels": levels}
    result = train(
        module,
        fitted,
        recipe,
        test=test,
        device=job.device,
        resume=state_path(job.out),
        start=marks,
        progress=progress,
    )
    curve = job.out.with_suffix(".png")
    if is_main():
        save_learning_curve(curve, result)
        # The last of the two, for it removes the state that a killed job goes on from.
        save_checkpoint(module, job.out, result, name=job.model, start=start or None)
    return result, curve
