"""From a trained module to a calibrated network, with the accuracy before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.agreement import check_agreement
from calibration.choices import CALIBRATION_SAMPLES, QUANTISATIONS, Choices, check_method
from calibration.methods.method import PerSampleMethod, StaticMethod
from calibration.stage import calibrate
from calibration.thresholds import relu_thresholds
from cos_export.accuracy import AccuracyRow, measure_accuracy, readouts
from cos_export.capturing import captured
from cos_export.capturing.activation_observer import observed_relus
from cos_export.capturing.options import check_options
from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.errors import InputError
from cos_export.module_logits import eval_mode
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.quantisation import quantise
from cos_export.simulation import ann_logits
from cos_export.training.evaluation import check_logits
from cos_export.user_code import user_code

__all__ = [
    "Conversion",
    "DataParts",
    "Prepared",
    "convert",
    "data_parts",
    "prepare",
]

Channels = float | Sequence[float] | None


@dataclass(frozen=True)
class DataParts:
    """Images to calibrate on, None if nothing needs them, and images to measure on. They never overlap."""

    calibration: Dataset | None
    evaluation: Dataset


@dataclass(frozen=True)
class Prepared:
    """A network before and after its calibration.

    Attributes:
        captured: Before.
        calibrated: After.
        thresholds: What its ReLUs got, by path.
        logits: Of the module, for the images to measure on: (samples, classes).
        state: The file that holds the result of the calibration, if there was one to do and a file was named: to be
            removed when the network is kept elsewhere.
    """

    captured: SpikingNetwork
    calibrated: SpikingNetwork
    thresholds: Mapping[str, FloatArray]
    logits: FloatArray
    state: Path | None = None


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
        state: The file that holds the result of the calibration, to be removed when the network is in a bundle.
    """

    network: SpikingNetwork
    calibration: PerSampleMethod | None
    ann_accuracy: float
    captured_accuracy: float
    rows: tuple[AccuracyRow, ...]
    thresholds: Mapping[str, FloatArray]
    state: Path | None = None

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
    module: nn.Module,
    spec: str,
    choices: Choices,
    *,
    calibration: str | None = None,
    mean: Channels = None,
    std: Channels = None,
) -> DataParts:
    """The data for a conversion of `module`.

    A named data set has a training part to calibrate on. Of a file, what needs data gets the first images, at most
    half of them, and the accuracy is measured on the rest, unless there is another file to calibrate on.

    Args:
        module: What is to be converted.
        spec: A data set as `load_dataset` takes it.
        choices: Of the user.
        calibration: Another data set to calibrate on, all of whose images may serve.
        mean: Of each channel, to be subtracted.
        std: Of each channel, to be divided by.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: There is no such data set or method, the module does not take its images, or they are too few.
    """
    needed = choices.method.needs_data or choices.numerics == "int8"
    whole = load_dataset(spec, "test", mean=mean, std=std)
    _check_takes(module, whole)
    options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
    example = torch.from_numpy(whole.images[:1])
    if not needed and not observed_relus(module, example, options, torch.device("cpu")).keys:
        return DataParts(None, whole)
    if is_named(spec) or calibration is not None:
        train = load_dataset(calibration or spec, "train", mean=mean, std=std)
        _check_takes(module, train)
        return DataParts(train.first(min(choices.samples or CALIBRATION_SAMPLES, len(train))), whole)
    if len(whole) < 2:
        raise InputError(f"{spec} has one image: some are needed to calibrate on, and others to measure on.")
    return DataParts(*whole.split_at(min(choices.samples or CALIBRATION_SAMPLES, len(whole) // 2)))


def _check_takes(module: nn.Module, dataset: Dataset) -> None:
    """Runs one image, so that a misfit is named before it is a traceback from deep inside the module."""
    shape = tuple(dataset.images.shape[1:])
    failure = f"{type(module).__name__} does not take images of shape {shape} from {dataset.name}"
    with user_code(failure), eval_mode(module), torch.no_grad():
        # A copy, for forward may write into it.
        logits = module(torch.from_numpy(dataset.images[:1].copy()))
    check_logits(module, logits, dataset)


def prepare(
    module: nn.Module,
    parts: DataParts,
    choices: Choices,
    *,
    resume: str | Path | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Captures a module and calibrates it: the part of `convert` that several processes share.

    Args:
        module: A trained network of QCFS or ReLU activations.
        parts: From `data_parts`.
        choices: Of the user.
        resume: A file for the state of the calibration; see `calibration.stage.calibrate`.
        progress: Told as it goes on.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: The images do not fit, there is no such method or option, or the state is another calibration's.
        ParityError: The captured network does not compute what the module does.
    """
    check_method(choices)
    thresholds = _thresholds(module, parts, choices, progress)
    progress("capturing the network", 0, 1)
    options = check_options(choices.levels, thresholds, choices.max_pool)
    found = captured(module, parts.evaluation.first(1), options)
    logits = check_agreement(module, found, parts.evaluation.images, device=choices.device)
    progress("capturing the network", 1, 1)
    network = calibrated = found.network
    to_integers = partial(_quantised, parts=parts, choices=choices, progress=progress)
    # Weights are tuned as they are trained, in float32; all else is found for the integers that will run.
    if choices.numerics == "int8" and not choices.method.changes_weights:
        network = calibrated = to_integers(network)
    # A method that looks at no image is given those that are there; one that does never sees the evaluation's.
    given = parts.calibration if choices.method.needs_data else parts.evaluation
    state = None
    if given is not None and isinstance(choices.method, StaticMethod) and choices.method.name != network.method:
        calibrated = calibrate(
            network,
            given.images,
            choices.method,
            choices.steps,
            device=choices.device,
            batch_size=choices.batch_size,
            resume=resume,
            progress=progress,
        )
        state = None if resume is None else Path(resume)
    if choices.numerics == "int8" and network.numerics != "int8":
        network, calibrated = to_integers(network), to_integers(calibrated)
    return Prepared(network, calibrated, thresholds, logits, state)


def _quantised(network: SpikingNetwork, parts: DataParts, choices: Choices, progress: Progress) -> SpikingNetwork:
    if parts.calibration is None:
        raise InputError("Numerics int8 needs images to calibrate on.")
    return quantise(
        network,
        parts.calibration.images,
        steps=choices.steps,
        device=choices.device,
        progress=progress,
        **{QUANTISATIONS[name]: True for name in choices.quantisation},
    )


def convert(
    module: nn.Module,
    parts: DataParts,
    choices: Choices,
    *,
    resume: str | Path | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Captures a module, calibrates it and measures what came of it; arguments and errors are those of `prepare`."""
    prepared = prepare(module, parts, choices, resume=resume, progress=progress)
    calibration, evaluation = choices.per_sample, parts.evaluation
    ann = float((prepared.logits.argmax(axis=1) == evaluation.labels).mean())
    answers = ann_logits(prepared.captured, evaluation.images, device=choices.device).argmax(axis=1)
    measure = partial(measure_accuracy, dataset=evaluation, at=readouts(choices.steps), device=choices.device)
    rows = [measure(prepared.captured, progress=progress)]
    if calibration is not None or prepared.calibrated.method != "half":
        rows.append(measure(prepared.calibrated, calibration=calibration, progress=progress))
    share = float((answers == evaluation.labels).mean())
    return Conversion(prepared.calibrated, calibration, ann, share, tuple(rows), prepared.thresholds, prepared.state)


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
