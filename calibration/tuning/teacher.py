"""The output of a spiking network as T grows: what a calibration by gradient is to come close to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.data import CalibrationData
from cos_export.decisions import class_count, class_logits
from cos_export.processes import summed
from cos_export.progress import Progress
from cos_export.simulation.activations import limit_activation
from cos_export.simulation.program import Program

__all__ = ["teacher_logits", "teacher_table"]


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


def teacher_table(program: Program, data: CalibrationData, progress: Progress, *, both_sides: bool = False) -> Tensor:
    """`teacher_logits` of all the images in their order, on the program's device: (samples, classes).

    What is computed at once does not depend on where a calibration was interrupted, so neither does the rounding.

    Args:
        program: The network.
        data: The images; each process computes its share.
        progress: Told of each batch.
        both_sides: As for `teacher_logits`.
    """
    stage = "asking the teacher"
    table = torch.zeros(len(data), class_count(program.network.output_shape[-1]), device=program.device)
    for batch in data.in_order():
        progress(stage, int(batch.numbers[0]), len(data))
        outputs = teacher_logits(program, batch.images.to(program.device), both_sides=both_sides)
        table[batch.numbers.to(program.device)] = outputs
    summed([table])
    progress(stage, len(data), len(data))
    return table


def _one_side(program: Program, images: Tensor) -> Tensor:
    logits = program.propagate(images, limit_activation)[0].float()
    return class_logits(program.readout_scale * logits).log_softmax(dim=1)
