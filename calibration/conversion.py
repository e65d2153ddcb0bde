"""From a trained module to a calibrated network, with the accuracy before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calibration.choices import Choices
from calibration.data_parts import DataParts
from calibration.methods.method import PerSampleMethod
from calibration.preparing import prepare
from calibration.selection import MOST_HELD_OUT, Candidate, Selection, select
from calibration.sources import Source
from cos_export.accuracy import AccuracyRow, measure_accuracy, readouts
from cos_export.datasets import Dataset
from cos_export.decisions import decisions
from cos_export.device import resolve_device
from cos_export.divergence import agreement
from cos_export.network import FloatArray, SpikingNetwork, held_images
from cos_export.processes import local_device, process_group
from cos_export.progress import Progress, silent
from cos_export.quantisation.current_errors import JUDGED, current_errors
from cos_export.quantisation.resolution import coarse_layers
from cos_export.shared_logits import shared_ann_logits, shared_readout

__all__ = ["Conversion", "IntegerLoss", "convert"]


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
        network: Calibrated, if its method is static; in the form that was asked for.
        calibration: The per-sample method that it is to be run with, or None.
        ann_accuracy: Of the module that was converted, or of the artificial network that a file's thresholds stand for.
        captured_accuracy: Of the captured network with activations in place of spikes: that of the module but for
            rounding and, for ReLUs, what was clipped at the threshold.
        rows: The accuracies of v_init = theta / 2 and of the method, by step.
        thresholds: Of the ReLUs that got theirs from data, by path: one number, or one for each channel.
        states: The files that hold results of the calibrations, to be removed when the network is in a bundle.
        selection: What decided for the method.
        integers: What they changed, in a network of integers.
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
        document = {
            "dataset": parts.evaluation.name,
            "normalisation": parts.evaluation.normalisation,
            "labels": "decisions of the artificial network" if parts.evaluation.labels is None else "of the data",
            "samples": len(parts.evaluation),
            "calibration_samples": 0 if parts.calibration is None else len(parts.calibration),
            "ann_accuracy": self.ann_accuracy,
            "captured_ann_accuracy": self.captured_accuracy,
            "methods": [row.to_dict() for row in self.rows],
            "selection": self.selection.to_dict(),
        }
        if self.integers is not None:
            document["float32"] = self.integers.to_dict()
        if self.thresholds:
            document["relu_thresholds"] = {
                "method": choices.thresholds,
                "per_channel": choices.per_channel,
                "values": {path: array.tolist() for path, array in self.thresholds.items()},
            }
        return document


def convert(
    source: Source,
    parts: DataParts,
    choices: Choices,
    *,
    resume: str | Path | None = None,
    deployed_only: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Captures a module, calibrates it and measures what came of it; arguments and errors are those of `prepare`.

    Started by `torchrun` in several processes, each takes its share of the images and all return the same.

    Args:
        source: What is converted.
        parts: Its images.
        choices: Of the user.
        resume: The file for the state of the calibration.
        deployed_only: Measure what is deployed after all its T steps, and neither other readouts nor the network before
            its calibration: for whoever has compared them.
        progress: Told as it goes on.
    """
    where = local_device(resolve_device(choices.device))
    with process_group(where):
        return _convert(source, parts, replace(choices, device=str(where)), resume, deployed_only, progress)


def _convert(
    source: Source,
    parts: DataParts,
    choices: Choices,
    resume: str | Path | None,
    deployed_only: bool,
    progress: Progress,
) -> Conversion:
    prepared = prepare(source, parts, choices, resume=resume, progress=progress)
    logits = partial(shared_ann_logits, device=choices.device, progress=progress)
    held_out, evaluation = parts.held_out, parts.evaluation.labelled_by(decisions(prepared.logits))
    chosen, selection = select(
        prepared.captured,
        prepared.candidates,
        held_out,
        None if held_out is None else logits(prepared.reference, held_out.images),
        choices.steps,
        named=not choices.candidates,
        skipped=prepared.skipped,
        device=choices.device,
        progress=progress,
    )
    ann = float((decisions(prepared.logits) == evaluation.truth).mean())
    predictions = decisions(logits(prepared.captured, evaluation.images))
    measured = partial(
        _rows, chosen=chosen, evaluation=evaluation, choices=choices, deployed_only=deployed_only, progress=progress
    )
    share = float((predictions == evaluation.truth).mean())
    integers = None
    if chosen.float32 is not None and parts.calibration is not None:
        agreed, count = _agreement(chosen, parts.calibration, choices, progress)
        # Rounding alone, without what a method then makes of either.
        pair = (prepared.reference, prepared.captured)
        if chosen.method.changes_weights:
            pair = (chosen.float32, chosen.network)
        images = held_images(pair[0], parts.calibration)
        some = images[:: max(1, len(images) // JUDGED)][:JUDGED]
        errors = current_errors(*pair, some, choices.steps, resolve_device(choices.device))
        coarse = tuple(coarse_layers(chosen.float32, chosen.network, choices.steps, errors))
        integers = IntegerLoss(measured(prepared.reference, chosen.float32), agreed, count, coarse)
    return Conversion(
        choices.in_written_form(chosen.network),
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
    deployed_only: bool,
    progress: Progress,
) -> tuple[AccuracyRow, ...]:
    """The accuracies of the network before its calibration and, if that changed it, of the method."""
    at = [t for t in readouts(choices.steps) if evaluation.frames is None or t <= evaluation.frames]
    if deployed_only:
        at = [choices.steps]
    measure = partial(measure_accuracy, dataset=evaluation, at=at, device=choices.device, progress=progress)
    changed = calibrated is not start or chosen.per_sample is not None
    rows = [] if changed and deployed_only else [measure(start)]
    if changed:
        rows.append(measure(calibrated, calibration=chosen.per_sample))
    return tuple(rows)


def _agreement(chosen: Candidate, images: Dataset, choices: Choices, progress: Progress) -> tuple[float, int]:
    """The share of calibration images that the network of integers and that of float32 decide alike after T steps."""
    # Spread over all, for images may come sorted by class.
    some = images.images[np.arange(0, len(images), max(1, len(images) // MOST_HELD_OUT))[:MOST_HELD_OUT]]
    whole, real = (
        shared_readout(
            network, some, choices.steps, calibration=chosen.per_sample, device=choices.device, progress=progress
        )
        for network in (chosen.network, chosen.float32 or chosen.network)
    )
    return agreement(whole, real), len(some)
