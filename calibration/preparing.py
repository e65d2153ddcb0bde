"""From a trained module to a captured network, and to one that a method has calibrated."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from calibration.agreement import check_agreement
from calibration.choices import QUANTISATIONS, Choices, check_method
from calibration.data_parts import DataParts
from calibration.methods.method import Method, StaticMethod
from calibration.methods.unchanged import Unchanged
from calibration.selection import Candidate
from calibration.sources import Source, logits_of
from calibration.stage import calibrate
from calibration.thresholds import observed_thresholds, threshold_rule
from cos_export.capturing import captured
from cos_export.capturing.activation_observer import Observed, observed_relus
from cos_export.capturing.options import check_options
from cos_export.capturing.preparing import traced_module
from cos_export.device import resolve_device
from cos_export.errors import InputError, NetworkError, ResolutionWarning
from cos_export.network import FloatArray, SpikingNetwork, with_normalisation_of
from cos_export.progress import Progress, silent
from cos_export.quantisation import quantise

__all__ = ["Prepared", "Start", "calibrated_by", "prepare", "start"]


@dataclass(frozen=True)
class Start:
    """A network before any calibration.

    Attributes:
        captured: Of the numerics that are to be exported.
        reference: Of float32.
        thresholds: What its ReLUs got, by path.
        logits: Of the module, for the images to measure on: (samples, classes).
    """

    captured: SpikingNetwork
    reference: SpikingNetwork
    thresholds: Mapping[str, FloatArray]
    logits: FloatArray


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


def prepare(
    source: Source,
    parts: DataParts,
    choices: Choices,
    *,
    resume: str | Path | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Captures a module and calibrates it: the part of `convert` that several processes share.

    Args:
        source: A trained network of QCFS or ReLU activations, or a network that was read and is calibrated as it is.
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
    begun = start(source, parts, choices, progress=progress)
    candidates, skipped, states = [], {}, []
    for method in choices.candidates or (choices.method,):
        own = _state_file(resume, method.name if choices.candidates else None)
        try:
            candidates.append(calibrated_by(method, begun, parts, choices, resume=own, progress=progress))
        except NetworkError as error:
            # What this network cannot take: biases without a synapse to hold them.
            if not choices.candidates:
                raise
            skipped[method.name] = str(error)
        states += [file for file in (own, _state_file(own, "float32")) if file is not None]
    return Prepared(
        begun.captured, begun.reference, tuple(candidates), skipped, begun.thresholds, begun.logits, tuple(states)
    )


def start(source: Source, parts: DataParts, choices: Choices, *, progress: Progress = silent) -> Start:
    """Captures a module, and makes integers of it if these are asked for; arguments and errors as for `prepare`."""
    if isinstance(source, SpikingNetwork):
        read = with_normalisation_of(replace(source, schedule=choices.schedule), parts.evaluation)
        network = _in_integers(read, parts, choices, progress)
        choices.in_written_form(network)
        return Start(network, read, {}, logits_of(read, parts.evaluation, choices.device, progress=progress))
    module = source
    progress("capturing the network", 0, 1)
    example = parts.evaluation.first(1).mean_over_time()
    options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
    # Traced once, for the thresholds and for the network: it takes long on a deep one, and runs the user's code.
    traced = parts.traced or traced_module(module, example, options)
    observed = observed_relus(traced, options, resolve_device(choices.device))
    thresholds = _thresholds(observed, parts, choices, progress)
    options = check_options(choices.levels, thresholds, choices.max_pool)
    capture = captured(module, example, options, traced)
    logits = check_agreement(
        module, capture, parts.evaluation.mean_over_time().images, device=choices.device, progress=progress
    )
    progress("capturing the network", 1, 1)
    reference = replace(capture.network, schedule=choices.schedule)
    network = _in_integers(reference, parts, choices, progress)
    # What has no such form is refused before anything is calibrated.
    choices.in_written_form(network)
    return Start(network, reference, thresholds, logits)


def _in_integers(network: SpikingNetwork, parts: DataParts, choices: Choices, progress: Progress) -> SpikingNetwork:
    if choices.weight_bits is None:
        return network
    return _quantised(network, parts=parts, choices=choices, progress=progress)


def calibrated_by(
    method: Method,
    begun: Start,
    parts: DataParts,
    choices: Choices,
    *,
    resume: Path | None = None,
    beside: bool = True,
    progress: Progress = silent,
) -> Candidate:
    """A captured network calibrated by one method.

    Args:
        method: The method; that of `choices` is left aside.
        begun: What was captured with these choices.
        parts: From `data_parts`.
        choices: Of the user.
        resume: A file for the state of the calibration.
        beside: Whether the network of float32 is calibrated as well where integers are.
        progress: Told as it goes on.

    Raises:
        NetworkError: The method cannot calibrate this network.
    """
    calibrated = partial(_calibrated, method=method, parts=parts, choices=choices, progress=progress)
    if choices.weight_bits is None:
        return Candidate(method, calibrated(begun.reference, resume=resume))
    if method.changes_weights:
        # Weights are tuned as they are trained, in float32; all else is found for the integers that will run.
        tuned = calibrated(begun.reference, resume=resume)
        return Candidate(method, _quantised(tuned, parts=parts, choices=choices, progress=progress), tuned)
    real = calibrated(begun.reference, resume=_state_file(resume, "float32")) if beside else None
    return Candidate(method, calibrated(begun.captured, resume=resume), real)


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
    """The network calibrated by a static method; as it is for any other, and where that would change nothing."""
    # A method that looks at no image is given those that are there; one that does never sees the evaluation's.
    given = parts.calibration if method.needs_data else parts.evaluation
    done = method.record() == network.calibration and not method.depends_on_steps
    if given is None or done or isinstance(method, Unchanged) or not isinstance(method, StaticMethod):
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
    if parts.calibration is None or choices.weight_bits is None:
        raise InputError(f"Numerics {choices.numerics} needs images to calibrate on.")
    with warnings.catch_warnings():
        # They stand in the manifest and at the end of the terminal's output (`IntegerLoss`).
        warnings.simplefilter("ignore", ResolutionWarning)
        return quantise(
            network,
            parts.calibration.images,
            steps=choices.steps,
            weight_bits=choices.weight_bits,
            device=choices.device,
            progress=progress,
            **{QUANTISATIONS[name]: True for name in choices.quantisation},
        )


def _thresholds(observed: Observed, parts: DataParts, choices: Choices, progress: Progress) -> Mapping[str, FloatArray]:
    if parts.calibration is None:
        return {}
    return observed_thresholds(
        observed,
        parts.calibration.mean_over_time().images,
        threshold_rule(choices.thresholds, choices.steps),
        per_channel=choices.per_channel,
        progress=progress,
    )
