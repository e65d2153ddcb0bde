"""From a trained module to a calibrated network, with the accuracy before and after."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.agreement import check_agreement
from calibration.choices import CALIBRATION_SAMPLES, QUANTISATIONS, Choices, check_method
from calibration.methods.method import Method, PerSampleMethod, StaticMethod
from calibration.selection import MOST_HELD_OUT, Candidate, Selection, hold_out, select
from calibration.stage import calibrate
from calibration.thresholds import relu_thresholds
from cos_export.accuracy import AccuracyRow, measure_accuracy, readouts
from cos_export.capturing import captured
from cos_export.capturing.activation_observer import observed_relus
from cos_export.capturing.options import check_options
from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.divergence import agreement
from cos_export.errors import InputError, NetworkError, ResolutionWarning
from cos_export.module_logits import eval_mode
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.progress import Progress, silent
from cos_export.quantisation import quantise
from cos_export.quantisation.resolution import coarse_layers
from cos_export.simulation import ann_logits, simulate
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
    """Images to calibrate on, None if nothing needs them, and to measure on, and those to compare methods on.

    They never overlap.
    """

    calibration: Dataset | None
    evaluation: Dataset
    held_out: Dataset | None = None


@dataclass(frozen=True)
class Prepared:
    """A network before and after its calibration.

    Attributes:
        captured: Before, of the numerics that are to be exported.
        reference: Before, of float32.
        candidates: After, by each method that was tried.
        skipped: Why a method could not be tried, by name.
        thresholds: What its ReLUs got, by path.
        logits: Of the module, for the images to measure on: (samples, classes).
        states: The files that hold results of the calibrations, if files were named: to be removed when the network is
            kept elsewhere.
    """

    captured: SpikingNetwork
    reference: SpikingNetwork
    candidates: tuple[Candidate, ...]
    skipped: Mapping[str, str]
    thresholds: Mapping[str, FloatArray]
    logits: FloatArray
    states: tuple[Path, ...] = ()


@dataclass(frozen=True)
class IntegerLoss:
    """The network of float32 beside that of integers.

    Attributes:
        rows: Its accuracies, calibrated by the same method for the same T.
        agreement: The share of calibration images that both decide alike after T steps.
        samples: How many images those are.
        warnings: Where the integers are coarser than one level.
    """

    rows: tuple[AccuracyRow, ...]
    agreement: float
    samples: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [row.to_dict() for row in self.rows]
        agreed = {"agreement": self.agreement, "agreement_samples": self.samples}
        return {"methods": rows, **agreed, "warnings": list(self.warnings)}


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
        states: The files that hold results of the calibrations, to be removed when the network is in a bundle.
        selection: What decided for the method.
        integers: What int8 changed, in a network of integers.
    """

    network: SpikingNetwork
    calibration: PerSampleMethod | None
    ann_accuracy: float
    captured_accuracy: float
    rows: tuple[AccuracyRow, ...]
    thresholds: Mapping[str, FloatArray]
    selection: Selection
    integers: IntegerLoss | None = None
    states: tuple[Path, ...] = ()

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
            "selection": self.selection.to_dict(),
        }
        if self.integers is not None:
            found["float32"] = self.integers.to_dict()
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
    needed = choices.method.needs_data or bool(choices.candidates) or choices.numerics == "int8"
    whole = load_dataset(spec, "test", mean=mean, std=std)
    _check_takes(module, whole)
    options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
    example = torch.from_numpy(whole.images[:1])
    if not needed and not observed_relus(module, example, options, torch.device("cpu")).keys:
        return DataParts(None, whole)
    wanted = choices.samples or CALIBRATION_SAMPLES
    if is_named(spec) or calibration is not None:
        pool = load_dataset(calibration or spec, "train", mean=mean, std=std)
        _check_takes(module, pool)
    elif len(whole) < 2:
        raise InputError(f"{spec} has one image: some are needed to calibrate on, and others to measure on.")
    else:
        pool, rest = whole.split_at(min(wanted + min(MOST_HELD_OUT, max(1, wanted // 4)), len(whole) // 2))
        whole = rest
    if choices.method.name == "half" and not choices.candidates:
        # Nothing is compared, so nothing is held out.
        return DataParts(pool.first(min(wanted, len(pool))), whole)
    used, held_out = hold_out(pool, wanted)
    return DataParts(used, whole, held_out)


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
    reference = network = replace(found.network, schedule=choices.schedule)
    to_integers = partial(_quantised, parts=parts, choices=choices, progress=progress)
    if choices.numerics == "int8":
        network = to_integers(reference)
    candidates, skipped, states = [], {}, []
    for method in choices.candidates or (choices.method,):
        calibrated = partial(_calibrated, method=method, parts=parts, choices=choices, progress=progress)
        own = _state_file(resume, method.name if choices.candidates else None)
        try:
            if choices.numerics == "float32":
                candidates.append(Candidate(method, calibrated(reference, resume=own)))
            elif method.changes_weights:
                # Weights are tuned as they are trained, in float32; all else is found for the integers that will run.
                tuned = calibrated(reference, resume=own)
                candidates.append(Candidate(method, to_integers(tuned), tuned))
            else:
                beside = calibrated(reference, resume=_state_file(own, "float32"))
                candidates.append(Candidate(method, calibrated(network, resume=own), beside))
        except NetworkError as error:
            # What this network cannot take: biases without a synapse to hold them.
            if not choices.candidates:
                raise
            skipped[method.name] = str(error)
        states += [file for file in (own, _state_file(own, "float32")) if file is not None]
    return Prepared(network, reference, tuple(candidates), skipped, thresholds, logits, tuple(states))


def _state_file(resume: str | Path | None, label: str | None) -> Path | None:
    """A file for the state of one of several calibrations."""
    if resume is None or label is None:
        return None if resume is None else Path(resume)
    path = Path(resume)
    return path.with_name(f"{path.stem}.{label}{path.suffix}")


def _calibrated(
    network: SpikingNetwork,
    method: Method,
    parts: DataParts,
    choices: Choices,
    *,
    resume: Path | None,
    progress: Progress,
) -> SpikingNetwork:
    """The network calibrated by a static method; as it is for any other, and for the one that it was captured with."""
    # A method that looks at no image is given those that are there; one that does never sees the evaluation's.
    given = parts.calibration if method.needs_data else parts.evaluation
    if given is None or not isinstance(method, StaticMethod) or method.name == network.method:
        return network
    return calibrate(
        network,
        given.images,
        method,
        choices.steps,
        device=choices.device,
        batch_size=choices.batch_size,
        resume=resume,
        progress=progress,
    )


def _quantised(network: SpikingNetwork, parts: DataParts, choices: Choices, progress: Progress) -> SpikingNetwork:
    if parts.calibration is None:
        raise InputError("Numerics int8 needs images to calibrate on.")
    with warnings.catch_warnings():
        # They stand in the manifest and at the end of the terminal's output (`IntegerLoss`).
        warnings.simplefilter("ignore", ResolutionWarning)
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
    held_out, evaluation = parts.held_out, parts.evaluation
    chosen, selection = select(
        prepared.captured,
        prepared.candidates,
        held_out,
        None if held_out is None else ann_logits(prepared.reference, held_out.images, device=choices.device),
        choices.steps,
        named=not choices.candidates,
        skipped=prepared.skipped,
        device=choices.device,
        progress=progress,
    )
    ann = float((prepared.logits.argmax(axis=1) == evaluation.labels).mean())
    answers = ann_logits(prepared.captured, evaluation.images, device=choices.device).argmax(axis=1)
    measured = partial(_rows, chosen=chosen, evaluation=evaluation, choices=choices, progress=progress)
    share = float((answers == evaluation.labels).mean())
    integers = None
    if chosen.float32 is not None and parts.calibration is not None:
        agreed, count = _agreement(chosen, parts.calibration, choices, progress)
        coarse = tuple(coarse_layers(chosen.float32, chosen.network, choices.steps))
        integers = IntegerLoss(measured(prepared.reference, chosen.float32), agreed, count, coarse)
    return Conversion(
        chosen.network,
        chosen.per_sample,
        ann,
        share,
        measured(prepared.captured, chosen.network),
        prepared.thresholds,
        selection,
        integers,
        prepared.states,
    )


def _rows(
    start: SpikingNetwork,
    calibrated: SpikingNetwork,
    *,
    chosen: Candidate,
    evaluation: Dataset,
    choices: Choices,
    progress: Progress,
) -> tuple[AccuracyRow, ...]:
    """The accuracies of v_init = theta / 2 and, if that is another, of the method."""
    measure = partial(
        measure_accuracy, dataset=evaluation, at=readouts(choices.steps), device=choices.device, progress=progress
    )
    rows = [measure(start)]
    if chosen.method.name != "half":
        rows.append(measure(calibrated, calibration=chosen.per_sample))
    return tuple(rows)


def _agreement(chosen: Candidate, images: Dataset, choices: Choices, progress: Progress) -> tuple[float, int]:
    """The share of calibration images that the network of integers and that of float32 decide alike after T steps."""
    # Spread over all, for images may come sorted by class.
    some = images.images[:: max(1, len(images) // MOST_HELD_OUT)][:MOST_HELD_OUT]
    whole, real = (
        simulate(
            network,
            some,
            choices.steps,
            calibration=chosen.per_sample,
            device=choices.device,
            record_spikes=False,
            record_states=False,
            progress=progress,
        ).logits[-1]
        for network in (chosen.network, chosen.float32 or chosen.network)
    )
    return agreement(whole, real), len(some)


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
