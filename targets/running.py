"""A bundle on a target, pre-simulated by the reference where its method is per sample and the target cannot."""

from __future__ import annotations

from dataclasses import replace

from cos_export.bundle import Bundle
from cos_export.bundle.target import PreSimulating, Target
from cos_export.network import FloatArray
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, simulate
from cos_export.simulation.trace import Trace, concatenate

__all__ = ["classify"]

CHUNK = 512
"""Samples of a per-sample method at once: their potentials are held in memory, as many as the network has neurons."""


def classify(
    target: Target,
    bundle: Bundle,
    images: FloatArray,
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
    if calibration is None or (isinstance(target, PreSimulating) and target.presimulates(bundle)):
        return target.run(bundle, images, bundle.steps, record_spikes=False, progress=progress)
    traces = []
    for start in range(0, len(images), CHUNK):
        progress("classifying", start, len(images))
        part = images[start : start + CHUNK]
        found = simulate(
            bundle.network, part, bundle.steps, calibration=calibration, device=device, record_spikes=False
        )
        traces.append(target.run(bundle, part, bundle.steps, states=found.states, record_spikes=False))
    progress("classifying", len(images), len(images))
    return replace(concatenate([replace(trace, states=None) for trace in traces]), rho=calibration.rho)
