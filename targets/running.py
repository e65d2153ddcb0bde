"""A bundle on a target, pre-simulated by the reference where its method is per sample and the target cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.bundle import Bundle
from cos_export.bundle.target import PreSimulating, Target
from cos_export.datasets import ImageArray, StoredImages, kept_in_memory, some_of
from cos_export.processes import gathered, share
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Recording, Trace

__all__ = ["classify", "shared_classify"]

BATCH = 64
"""Samples that processes share their work by: those that most targets compute at once."""

CHUNK = 512
"""Samples of a per-sample method at once: their potentials are held in memory, as many as the network has neurons. Also
of images that are read from where they are stored."""


def classify(
    target: Target,
    bundle: Bundle,
    images: ImageArray,
    *,
    calibration: PerSampleCalibration | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Trace:
    """The logits of every sample at every step.

    With a per-sample method the target pre-simulates by itself if it can. Otherwise the PyTorch reference sets each
    sample's states, and the target runs from them, `CHUNK` samples at a time.

    Args:
        target: Where to run.
        bundle: What to run.
        images: (samples, ...), as `check_inputs` returns them.
        calibration: The bundle's per-sample method, or None if it is static.
        device: Where the reference pre-simulates.
        progress: Told as the runs go on.

    Raises:
        UnavailableError: The target or the device is not there.
        TargetError: The target failed while it ran.
    """
    images = kept_in_memory(images) if isinstance(images, StoredImages) else images
    if isinstance(images, StoredImages):
        return _in_parts(target, bundle, images, calibration, device, progress)
    if calibration is None or (isinstance(target, PreSimulating) and target.presimulates(bundle)):
        return target.run(bundle, images, bundle.steps, record_spikes=False, progress=progress)
    recording = Recording(bundle.network, len(images), bundle.steps, spikes=False)
    for start in range(0, len(images), CHUNK):
        progress("classifying", start, len(images))
        part = images[start : start + CHUNK]
        found = simulate(
            bundle.network, part, bundle.steps, calibration=calibration, device=device, record_spikes=False
        )
        trace = target.run(bundle, part, bundle.steps, states=found.states, record_spikes=False)
        recording.add(replace(trace, states=None))
    progress("classifying", len(images), len(images))
    return replace(recording.trace(), rho=calibration.rho)


def _in_parts(
    target: Target,
    bundle: Bundle,
    images: StoredImages,
    calibration: PerSampleCalibration | None,
    device: str,
    progress: Progress,
) -> Trace:
    """As `classify`, of images that do not fit in memory: `CHUNK` at a time."""
    recording = Recording(bundle.network, len(images), bundle.steps, spikes=False)
    for start in range(0, len(images), CHUNK):
        progress("reading and classifying", start, len(images))
        part = images[start : start + CHUNK]
        trace = classify(target, bundle, part, calibration=calibration, device=device)
        recording.add(replace(trace, states=None))
    progress("reading and classifying", len(images), len(images))
    return recording.trace()


def shared_classify(
    target: Target,
    bundle: Bundle,
    images: ImageArray,
    labels: NDArray[np.int64],
    *,
    calibration: PerSampleCalibration | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[NDArray[np.bool_], int]:
    """As `classify`, each process of a `process_group` on its share of the images; all get the same.

    Returns:
        Which images are decided for their label after each step, (steps, samples), and the steps that were spent on
        each image before.
    """
    own, rho = share(len(images), BATCH), 0
    mine = some_of(images, own)
    right = torch.zeros(len(mine), bundle.steps, dtype=torch.uint8)
    if len(right):
        trace = classify(target, bundle, mine, calibration=calibration, device=device, progress=progress)
        right, rho = torch.from_numpy(trace.right(labels[own]).T.astype(np.uint8)), trace.rho
    right = gathered(right, own, len(images))
    return right.numpy().T.astype(np.bool_), rho
