"""One update of a calibration by gradient: the teacher's outputs, the loss, its gradients, and Adam."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from calibration.tuning.flat import FlatParameters
from calibration.tuning.parameters import Tuning
from calibration.tuning.teacher import teacher_logits
from cos_export.decisions import class_logits
from cos_export.processes import summed
from cos_export.simulation.program import Program

__all__ = ["TuningUpdate", "summed_divergence"]


@dataclass(frozen=True)
class TuningUpdate:
    """An update by a batch, without reading a number on the host.

    Attributes:
        teacher: The network whose limit is the teacher.
        tuning: What is tuned.
        flat: Its parameters.
        samples: Images in the batches of all processes.
        known: The teacher's outputs for all images, (images, classes), or None to ask it anew.
        both_sides: As for `teacher_logits`.
        precision: That of the convolutions.
    """

    teacher: Program
    tuning: Tuning
    flat: FlatParameters
    samples: int
    known: Tensor | None
    both_sides: bool
    precision: Callable[[], AbstractContextManager[object]]

    def __call__(self, images: Tensor, numbers: Tensor, moves: Tensor) -> None:
        """Moves the parameters and their averages.

        Args:
            images: This process's part of the batch on the device, which may be empty.
            numbers: Which of all images they are, (samples,) on the device.
            moves: The two arguments of `FlatParameters.step`, (2,) on the device.
        """
        self.flat.clear_gradients()
        if len(images):
            with torch.enable_grad():
                with self.precision():
                    if self.known is None:
                        expected = teacher_logits(self.teacher, images, both_sides=self.both_sides)
                    else:
                        expected = self.known.index_select(0, numbers)
                    loss = summed_divergence(expected, self.tuning, images) / self.samples
                loss.backward()  # type: ignore[no-untyped-call]
        summed(self.flat.gradients())
        with torch.no_grad():
            self.flat.step(moves[0], moves[1])


def summed_divergence(expected: Tensor, tuning: Tuning, images: Tensor) -> Tensor:
    """KL from the teacher's to the tuned network's softmax, summed over images: ().

    Args:
        expected: The teacher's outputs, from `teacher_logits`.
        tuning: The network.
        images: (batch, ...).
    """
    program = tuning.program()
    # Over a window what reaches the Output is a sum over the steps already.
    mean = program.propagate(images, tuning.train).float().mean(0) / program.window
    logits = class_logits(program.readout_scale * mean)
    return functional.kl_div(logits.log_softmax(dim=1), expected, reduction="sum", log_target=True)
