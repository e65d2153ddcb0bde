"""Logits of many images, each process computing its share; all get all, to the bit those of one process.

Without other processes these are `module_logits`, `ann_logits` and `simulate`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from cos_export.datasets import ImageArray, some_of
from cos_export.module_logits import module_logits
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.processes import shared_rows
from cos_export.progress import Progress, silent
from cos_export.simulation import PerSampleCalibration, ann_logits, simulate

__all__ = ["shared_ann_logits", "shared_module_logits", "shared_readout"]

_BATCH = 64
"""Images computed at once."""


def shared_module_logits(
    model: nn.Module,
    images: ImageArray,
    *,
    device: torch.device,
    batch_size: int = 512,
    progress: Progress = silent,
) -> Tensor:
    """What `model` returns for images (samples, ...) in eval mode: (samples, ...)."""

    def compute(part: slice) -> Tensor:
        return module_logits(model, some_of(images, part), device=device, batch_size=batch_size, progress=progress)

    return shared_rows(compute, len(images), batch_size)


def shared_ann_logits(
    network: SpikingNetwork,
    images: ImageArray,
    *,
    device: str | torch.device,
    unclipped: Collection[str] = (),
    progress: Progress = silent,
) -> FloatArray:
    """The logits of the artificial network that the spiking one stands for: (samples, classes)."""

    def compute(part: slice) -> Tensor:
        rows = ann_logits(
            network, some_of(images, part), device=device, batch_size=_BATCH, unclipped=unclipped, progress=progress
        )
        return torch.from_numpy(rows)

    logits: FloatArray = shared_rows(compute, len(images), _BATCH).numpy()
    return logits


def shared_readout(
    network: SpikingNetwork,
    images: ImageArray,
    steps: int,
    *,
    calibration: PerSampleCalibration | None,
    device: str,
    progress: Progress = silent,
) -> FloatArray:
    """The mean readout of all steps: (samples, classes)."""

    def compute(part: slice) -> Tensor:
        trace = simulate(
            network,
            some_of(images, part),
            steps,
            calibration=calibration,
            device=device,
            batch_size=_BATCH,
            record_spikes=False,
            record_states=False,
            progress=progress,
        )
        return torch.from_numpy(trace.logits[-1])

    logits: FloatArray = shared_rows(compute, len(images), _BATCH).numpy()
    return logits
