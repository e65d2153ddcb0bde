"""The output of a spiking network as T grows: what a calibration by gradient is to come close to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cos_export.decisions import class_logits
from cos_export.simulation.activations import limit_activation
from cos_export.simulation.program import Program

__all__ = ["teacher_logits"]


@torch.no_grad()
def teacher_logits(program: Program, images: Tensor, *, both_sides: bool = False) -> Tensor:
    """The logarithm of softmax(logits) of the network with clip(z / theta, 0, 1) in place of its neurons.

    Args:
        program: The network.
        images: (batch, ...).
        both_sides: Whether to take the mean of the softmax over each image and its mirror image, left to right.

    Returns:
        (batch, classes), float32; two for a single logit.
    """
    logits = _one_side(program, images)
    if not both_sides:
        return logits
    return torch.logaddexp(logits, _one_side(program, images.flip(-1))) - math.log(2.0)


def _one_side(program: Program, images: Tensor) -> Tensor:
    logits = program.propagate(images, limit_activation)[0].float()
    return class_logits(program.readout_scale * logits).log_softmax(dim=1)
