"""The images of a conversion: to calibrate on, to compare methods on, and to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from calibration.choices import CALIBRATION_SAMPLES, Choices
from calibration.selection import held_out_beside, hold_out
from cos_export.capturing.activation_observer import observed_relus
from cos_export.capturing.options import check_options
from cos_export.capturing.preparing import traced_module
from cos_export.capturing.tracing import Traced
from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.errors import InputError
from cos_export.module_logits import eval_mode
from cos_export.training.evaluation import check_logits
from cos_export.user_code import user_code

__all__ = ["DataParts", "check_takes", "data_parts"]

Channels = float | Sequence[float] | None


@dataclass(frozen=True)
class DataParts:
    """Images to calibrate on, None if nothing needs them, and to measure on, and those to compare methods on.

    They never overlap.

    Attributes:
        calibration: What methods look at.
        evaluation: What accuracies are of.
        held_out: What decides between methods.
        traced: The module's graph, if it had to be known what data it needs: it is not traced again.
    """

    calibration: Dataset | None
    evaluation: Dataset
    held_out: Dataset | None = None
    traced: Traced | None = None


def data_parts(
    module: nn.Module,
    spec: str,
    choices: Choices,
    *,
    calibration: str | None = None,
    held_out: int | None = None,
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
        held_out: Images to compare on, by default a quarter as many as there are to calibrate on.
        mean: Of each channel, to be subtracted.
        std: Of each channel, to be divided by.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: There is no such data set or method, the module does not take its images, or they are too few.
    """
    needed = choices.method.needs_data or bool(choices.candidates) or choices.weight_bits is not None
    whole = load_dataset(spec, "test", mean=mean, std=std)
    check_takes(module, whole)
    traced = None
    if not needed:
        options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
        traced = traced_module(module, whole.first(1), options)
        if not observed_relus(traced, options, torch.device("cpu")).keys:
            return DataParts(None, whole, traced=traced)
    samples = choices.samples or CALIBRATION_SAMPLES
    if is_named(spec) or calibration is not None:
        pool = load_dataset(calibration or spec, "train", mean=mean, std=std)
        check_takes(module, pool)
    elif len(whole) < 2:
        raise InputError(f"{spec} has one image: some are needed to calibrate on, and others to measure on.")
    else:
        pool, rest = whole.split_at(min(samples + (held_out or held_out_beside(samples)), len(whole) // 2))
        whole = rest
    if choices.method.name == "half" and not choices.candidates:
        # Nothing is compared, so nothing is held out.
        return DataParts(pool.first(min(samples, len(pool))), whole, traced=traced)
    used, others = hold_out(pool, samples, held_out)
    return DataParts(used, whole, others, traced)


def check_takes(module: nn.Module, dataset: Dataset) -> None:
    """Runs one image, so that a misfit is named before it is a traceback from deep inside the module."""
    shape = tuple(dataset.images.shape[1:])
    failure = f"{type(module).__name__} does not take images of shape {shape} from {dataset.name}"
    with user_code(failure), eval_mode(module), torch.no_grad():
        # A copy, for forward may write into it.
        logits = module(torch.from_numpy(dataset.images[:1].copy()))
    check_logits(module, logits, dataset)
