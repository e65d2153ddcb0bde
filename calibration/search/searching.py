"""`search`: measures deployments one after the other, and goes on where it was interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.choices import Choices
from calibration.data_parts import DataParts
from calibration.methods.method import PerSampleMethod
from calibration.preparing import Start, calibrated_by, start
from calibration.search.candidates import Deployment, without_thresholds
from calibration.search.state import Measured, SearchState
from calibration.sources import Source, check_frames, digest_of, logits_of
from cos_export.capturing.activation_observer import observed_relus
from cos_export.capturing.options import check_options
from cos_export.capturing.preparing import traced_module
from cos_export.capturing.tail import Tail
from cos_export.costing.counted_run import shared_run
from cos_export.costing.timing import timing
from cos_export.datasets import Dataset, StoredImages
from cos_export.decisions import decisions
from cos_export.device import resolve_device
from cos_export.errors import InputError, NetworkError
from cos_export.network import SpikingNetwork
from cos_export.processes import is_main, local_device, process_group, same_everywhere
from cos_export.progress import Progress, silent
from cos_export.version import __version__

__all__ = ["search"]


def search(
    source: Source,
    parts: DataParts,
    choices: Choices,
    deployments: Sequence[Deployment],
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> tuple[list[Measured], float]:
    """Measures deployments on the images of `parts` that are held out. No other part decides anything.

    Started by `torchrun` in several processes, each takes its share of the images and all return the same.

    Each is calibrated on the calibration images and run on those held out: its accuracy beside that of the module, and
    what one image costs.

    Args:
        source: A trained network, or one that was read.
        parts: From `data_parts`; what is to be measured on at the end is not looked at.
        choices: Of the user; method, steps, schedule and rule for thresholds are those of each deployment.
        deployments: In the order in which they are measured. Those that differ in the rule for thresholds alone are
            one where the network has no thresholds to find.
        state: A file to keep what was measured in, after each, and to go on from.
        progress: Told as it goes on.

    Returns:
        What was measured, of all of them, and the accuracy of the module on the images held out.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: Nothing is held out, or the file is the state of another search.
        ParityError: The captured network does not compute what the module does.
    """
    if parts.calibration is None or parts.held_out is None:
        raise InputError("A search needs images to calibrate on, and others to compare on: give more than one.")
    held_out = parts.held_out
    check_frames(held_out, max(one.steps for one in deployments))
    where = local_device(resolve_device(choices.device))
    choices = replace(choices, device=str(where))
    with process_group(where):
        return _measured(source, parts, parts.calibration, held_out, choices, deployments, state, progress)


def _measured(
    source: Source,
    parts: DataParts,
    calibration: Dataset,
    held_out: Dataset,
    choices: Choices,
    deployments: Sequence[Deployment],
    state: Path | None,
    progress: Progress,
) -> tuple[list[Measured], float]:
    known = SearchState(state, _depends_on(source, calibration, held_out, choices))
    traced, options = parts.traced, check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
    if traced is None and not isinstance(source, SpikingNetwork):
        traced = traced_module(source, held_out.first(1).mean_over_time(), options)
    if traced is None or not observed_relus(traced, options, resolve_device(choices.device)).keys:
        deployments = without_thresholds(deployments)
    if not same_everywhere([known.get(one) for one in deployments]):
        raise InputError(f"The processes do not see the same {state}. Put it where all of them can read it.")
    tail = Tail() if traced is None else Tail(traced.left_out)
    logits = logits_of(source, held_out, choices.device, tail, progress=progress)
    held_out = held_out.labelled_by(decisions(logits))
    right = _right(logits, held_out)
    # The images held out take the place of those that are measured on.
    own = DataParts(calibration, held_out, traced=traced)
    starts = _Starts(source, own, choices, progress)
    results = []
    for number, one in enumerate(deployments):
        progress("measuring deployments", number, len(deployments))
        measured = known.get(one)
        if measured is None:
            resume = None if state is None else _resume_file(state, one)
            measured = _measure(one, starts, own, right, resume, progress)
            known.add(one, measured)
            if resume is not None and is_main():
                resume.unlink(missing_ok=True)
        results.append(measured)
    progress("measuring deployments", len(deployments), len(deployments))
    return results, float(right.mean())


class _Starts:
    """What was captured, for each T, schedule and rule for thresholds that it depends on."""

    def __init__(self, source: Source, parts: DataParts, choices: Choices, progress: Progress) -> None:
        self._source, self._parts, self._choices, self._progress = source, parts, choices, progress
        self._known: dict[tuple[int | None, str, str | None], Start] = {}
        self._any: Start | None = None

    def choices_of(self, one: Deployment) -> Choices:
        rule = one.thresholds or self._choices.thresholds
        return replace(self._choices, method=one.method, steps=one.steps, schedule=one.schedule, thresholds=rule)

    def of(self, one: Deployment) -> Start:
        """The network before the calibration of a deployment."""
        if self._any is not None:
            reference = replace(self._any.reference, schedule=one.schedule)
            return replace(self._any, reference=reference, captured=reference)
        # Integers are chosen for T, and so are thresholds by the mean square error.
        of_steps = self._choices.weight_bits is not None or self.choices_of(one).thresholds == "mmse"
        key = one.steps if of_steps else None, one.schedule, one.thresholds
        if key not in self._known:
            started = start(self._source, self._parts, self.choices_of(one), progress=self._progress)
            # Without thresholds from data and without integers nothing else changes it.
            if not started.thresholds and self._choices.weight_bits is None:
                self._any = started
            self._known[key] = started
        return self._known[key]


def _measure(
    one: Deployment,
    starts: _Starts,
    parts: DataParts,
    right: NDArray[np.bool_],
    resume: Path | None,
    progress: Progress,
) -> Measured:
    held_out, choices = parts.evaluation, starts.choices_of(one)
    try:
        network = calibrated_by(
            one.method, starts.of(one), parts, choices, resume=resume, beside=False, progress=progress
        ).network
        return _figures(one, network, held_out, right, choices.device, progress)
    except NetworkError as error:
        # What this network cannot take, as biases without a synapse to hold them, or sums beyond the integers.
        return Measured(**one.record(), failure=str(error))


def _figures(
    one: Deployment,
    network: SpikingNetwork,
    held_out: Dataset,
    right: NDArray[np.bool_],
    device: str,
    progress: Progress,
) -> Measured:
    per_sample = one.method if isinstance(one.method, PerSampleMethod) else None
    shown, counted = shared_run(network, held_out, one.steps, calibration=per_sample, device=device, progress=progress)
    also = shown[one.steps - 1]
    lost = right.astype(np.float64) - also
    return Measured(
        **one.record(),
        accuracy=float(also.mean()),
        drop=100 * float(lost.mean()),
        drop_error=100 * float(lost.std() / np.sqrt(len(lost))),
        total_steps=one.total_steps,
        latency=float(timing(network, one.steps, per_sample).latency),
        operations=float(counted.at(one.steps).synaptic_operations),
    )


def _right(logits: NDArray[np.float32], images: Dataset) -> NDArray[np.bool_]:
    return np.asarray(decisions(logits) == images.truth)


def _resume_file(state: Path, one: Deployment) -> Path:
    """For the calibration of one deployment, if it is interrupted itself."""
    return state.with_suffix(f".{hashlib.blake2b(one.key.encode(), digest_size=4).hexdigest()}.safetensors")


def _depends_on(source: Source, calibration: Dataset, held_out: Dataset, choices: Choices) -> Mapping[str, Any]:
    kept = ("levels", "max_pool", "per_channel", "numerics", "quantisation", "batch_size")
    plain = {key: value for key, value in asdict(choices).items() if key in kept}
    return {
        "version": __version__,
        "module": digest_of(source),
        "calibration images": _hash(calibration),
        "images held out": _hash(held_out),
        "device": resolve_device(choices.device).type,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()},
    }


def _hash(images: Dataset) -> str:
    held = images.images
    told = held.fingerprint.encode() if isinstance(held, StoredImages) else np.ascontiguousarray(held).data
    digest = hashlib.blake2b(told, digest_size=16)
    if images.labels is not None:
        digest.update(images.labels.tobytes())
    return digest.hexdigest()
