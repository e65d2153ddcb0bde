"""From a trained module to a calibrated network, with the accuracy before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calibration.stage import calibrate, needs_data, per_sample_method
from calibration.thresholds import relu_thresholds
from cos_export.accuracy import AccuracyRow, measure_accuracy, readouts
from cos_export.capturing import capture
from cos_export.capturing.observing import observed_relus
from cos_export.capturing.options import MaxPool, check_options
from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.errors import InputError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, activate
from cos_export.training import accuracy

__all__ = ["CALIBRATION_SAMPLES", "Choices", "Conversion", "DataParts", "convert", "data_parts"]

Channels = float | Sequence[float] | None

CALIBRATION_SAMPLES = 1000
"""Images to calibrate on unless the user says otherwise."""


@dataclass(frozen=True)
class Choices:
    """What the user may choose about a conversion.

    Attributes:
        method: The calibration method, by name.
        steps: T to calibrate for and to deploy at.
        rho: Extra steps of a per-sample method.
        samples: Images to calibrate on, or None for up to `CALIBRATION_SAMPLES`.
        levels: L of quantised activations of the user's own that do not say it.
        max_pool: Whether max pooling is refused or becomes average pooling.
        thresholds: How ReLUs without an upper bound get a threshold: "mmse", "percentile" or "maximum".
        per_channel: Whether each channel gets a threshold of its own.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    method: str
    steps: int
    rho: int = 4
    samples: int | None = None
    levels: int | None = None
    max_pool: MaxPool = "refuse"
    thresholds: str = "mmse"
    per_channel: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class DataParts:
    """Images to calibrate on, None if nothing needs them, and images to measure on. They never overlap."""

    calibration: Dataset | None
    evaluation: Dataset


@dataclass(frozen=True)
class Conversion:
    """A network that is ready to be exported.

    Attributes:
        network: Calibrated, if its method is static.
        calibration: The per-sample method that it is to be run with, or None.
        ann_accuracy: Of the module that was converted.
        captured_accuracy: Of the captured network with activations in place of spikes: that of the module but for
            rounding and, for ReLUs, what was clipped at the threshold.
        rows: The accuracies of v_init = theta / 2 and of the method, by step.
        thresholds: Of the ReLUs that got theirs from data, by path: one number, or one for each channel.
    """

    network: SpikingNetwork
    calibration: PerSampleCalibration | None
    ann_accuracy: float
    captured_accuracy: float
    rows: tuple[AccuracyRow, ...]
    thresholds: Mapping[str, FloatArray]

    def metrics(self, parts: DataParts, choices: Choices) -> dict[str, Any]:
        """What the manifest keeps of it."""
        found = {
            "dataset": parts.evaluation.name,
            "normalisation": parts.evaluation.normalisation,
            "samples": len(parts.evaluation),
            "calibration_samples": 0 if parts.calibration is None else len(parts.calibration),
            "ann_accuracy": self.ann_accuracy,
            "captured_ann_accuracy": self.captured_accuracy,
            "methods": [row.to_dict() for row in self.rows],
        }
        if self.thresholds:
            found["relu_thresholds"] = {
                "method": choices.thresholds,
                "per_channel": choices.per_channel,
                "values": {path: array.tolist() for path, array in self.thresholds.items()},
            }
        return found


def data_parts(
    module: nn.Module, spec: str, choices: Choices, *, mean: Channels = None, std: Channels = None
) -> DataParts:
    """The data for a conversion of `module`.

    A named data set has a training part to calibrate on. Of a file, what needs data gets the first images, at most
    half of them, and the accuracy is measured on the rest.

    Args:
        module: What is to be converted.
        spec: A data set as `load_dataset` takes it.
        choices: Of the user.
        mean: Of each channel, to be subtracted.
        std: Of each channel, to be divided by.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: There is no such data set or method, the module does not take its images, or they are too few.
    """
    needed = needs_data(choices.method)
    whole = load_dataset(spec, "test", mean=mean, std=std)
    _check_takes(module, whole)
    options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
    example = torch.from_numpy(whole.images[:1])
    if not needed and not observed_relus(module, example, options, torch.device("cpu")).keys:
        return DataParts(None, whole)
    if is_named(spec):
        train = load_dataset(spec, "train", mean=mean, std=std)
        return DataParts(train.first(min(choices.samples or CALIBRATION_SAMPLES, len(train))), whole)
    if len(whole) < 2:
        raise InputError(f"{spec} has one image: some are needed to calibrate on, and others to measure on.")
    return DataParts(*whole.split_at(min(choices.samples or CALIBRATION_SAMPLES, len(whole) // 2)))


def _check_takes(module: nn.Module, dataset: Dataset) -> None:
    """Runs one image, so that a misfit is named before it is a traceback from deep inside the module."""
    shape = tuple(dataset.images.shape[1:])
    try:
        with torch.no_grad():
            logits = module(torch.from_numpy(dataset.images[:1]))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"{type(module).__name__} does not take images of shape {shape} from {dataset.name}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{type(module).__name__} must return logits (batch, classes), and returned {found}.")
    if logits.shape[1] < dataset.classes:
        raise InputError(
            f"{type(module).__name__} knows {logits.shape[1]} classes, and {dataset.name} has labels up to "
            f"{dataset.classes - 1}."
        )


def convert(module: nn.Module, parts: DataParts, choices: Choices, *, progress: Progress = silent) -> Conversion:
    """Captures a module, calibrates it and measures what came of it.

    Args:
        module: A trained network of QCFS or ReLU activations.
        parts: From `data_parts`.
        choices: Of the user.
        progress: Told as it goes on.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: The images do not fit, or there is no such method.
    """
    calibration, evaluation = per_sample_method(choices.method, choices.rho), parts.evaluation
    device = choices.device
    thresholds = _thresholds(module, parts, choices, progress)
    progress("capturing the network", 0, 1)
    network = capture(
        module, evaluation.images[:2], levels=choices.levels, thresholds=thresholds, max_pool=choices.max_pool
    )
    progress("capturing the network", 1, 1)
    ann = accuracy(module, evaluation, device=device)
    answers = activate(network, evaluation.images, device=device).argmax(axis=1)
    at = readouts(choices.steps)
    rows = [measure_accuracy(network, evaluation, at, device=device, progress=progress)]
    if needs_data(choices.method) and parts.calibration is not None:
        images = parts.calibration.images
        network = calibrate(network, images, choices.method, choices.steps, device=device, progress=progress)
    if calibration is not None or network.method != "half":
        rows.append(
            measure_accuracy(network, evaluation, at, calibration=calibration, device=device, progress=progress)
        )
    captured = float((answers == evaluation.labels).mean())
    return Conversion(network, calibration, ann, captured, tuple(rows), thresholds)


def _thresholds(module: nn.Module, parts: DataParts, choices: Choices, progress: Progress) -> Mapping[str, FloatArray]:
    if parts.calibration is None:
        return {}
    return relu_thresholds(
        module,
        parts.calibration.images,
        choices.thresholds,
        per_channel=choices.per_channel,
        steps=choices.steps,
        max_pool=choices.max_pool,
        device=choices.device,
        progress=progress,
    )
