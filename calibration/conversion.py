"""From a trained module to a calibrated network, with the accuracy before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calibration.stage import calibrate, needs_data, per_sample_method
from cos_export.accuracy import AccuracyRow, measure_accuracy, readouts
from cos_export.capturing import capture
from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, activate
from cos_export.training import accuracy

__all__ = ["CALIBRATION_SAMPLES", "Conversion", "DataParts", "convert", "data_parts"]

CALIBRATION_SAMPLES = 1000
"""Images to calibrate on unless the user says otherwise."""


@dataclass(frozen=True)
class DataParts:
    """Images to calibrate on, None if the method needs none, and images to measure on. They never overlap."""

    calibration: Dataset | None
    evaluation: Dataset


@dataclass(frozen=True)
class Conversion:
    """A network that is ready to be exported.

    Attributes:
        network: Calibrated, if its method is static.
        calibration: The per-sample method that it is to be run with, or None.
        ann_accuracy: Of the module that was converted.
        captured_accuracy: Of the captured network with activations in place of spikes: the same but for rounding.
        rows: The accuracies of v_init = theta / 2 and of the method, by step.
    """

    network: SpikingNetwork
    calibration: PerSampleCalibration | None
    ann_accuracy: float
    captured_accuracy: float
    rows: tuple[AccuracyRow, ...]

    def metrics(self, parts: DataParts) -> dict[str, Any]:
        """What the manifest keeps of it."""
        return {
            "dataset": parts.evaluation.name,
            "normalisation": parts.evaluation.normalisation,
            "samples": len(parts.evaluation),
            "calibration_samples": 0 if parts.calibration is None else len(parts.calibration),
            "ann_accuracy": self.ann_accuracy,
            "captured_ann_accuracy": self.captured_accuracy,
            "methods": [row.to_dict() for row in self.rows],
        }


def data_parts(spec: str, method: str, samples: int | None = None) -> DataParts:
    """The data for a conversion.

    A named data set has a training part to calibrate on. Of a file, a method that needs data gets the first images,
    at most half of them, and the accuracy is measured on the rest.

    Args:
        spec: A data set as `load_dataset` takes it.
        method: The calibration method.
        samples: How many images to calibrate on.

    Raises:
        InputError: There is no such data set or method, or it has too few images.
    """
    if not needs_data(method):
        return DataParts(None, load_dataset(spec, "test"))
    if is_named(spec):
        train = load_dataset(spec, "train")
        return DataParts(train.first(min(samples or CALIBRATION_SAMPLES, len(train))), load_dataset(spec, "test"))
    whole = load_dataset(spec)
    if len(whole) < 2:
        raise InputError(f"{spec} has one image, and {method} needs some to calibrate on and others to measure on.")
    return DataParts(*whole.split_at(min(samples or CALIBRATION_SAMPLES, len(whole) // 2)))


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


def convert(
    module: nn.Module,
    parts: DataParts,
    method: str,
    steps: int,
    *,
    rho: int = 4,
    device: str = "auto",
    progress: Progress = silent,
) -> Conversion:
    """Captures a module, calibrates it and measures what came of it.

    Args:
        module: A trained network of QCFS activations.
        parts: From `data_parts`.
        method: A calibration method by name.
        steps: T to calibrate for and to deploy at.
        rho: Extra steps of a per-sample method.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Told as it goes on.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: The images do not fit, or there is no such method.
    """
    calibration, evaluation = per_sample_method(method, rho), parts.evaluation
    _check_takes(module, evaluation)
    ann = accuracy(module, evaluation, device=device)
    progress("capturing the network", 0, 1)
    network = capture(module, evaluation.images[:2])
    progress("capturing the network", 1, 1)
    answers = activate(network, evaluation.images, device=device).argmax(axis=1)
    at = readouts(steps)
    rows = [measure_accuracy(network, evaluation, at, device=device, progress=progress)]
    if parts.calibration is not None:
        network = calibrate(network, parts.calibration.images, method, steps, device=device, progress=progress)
    if calibration is not None or parts.calibration is not None:
        rows.append(
            measure_accuracy(network, evaluation, at, calibration=calibration, device=device, progress=progress)
        )
    return Conversion(network, calibration, ann, float((answers == evaluation.labels).mean()), tuple(rows))
