"""The images of a conversion: to calibrate on, to compare methods on, and to measure on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from calibration.choices import CALIBRATION_SAMPLES, Choices
from calibration.selection import held_out_beside, hold_out
from calibration.sources import Channels, Source, check_frames, source_dataset
from cos_export.capturing.activation_observer import observed_relus
from cos_export.capturing.options import check_options
from cos_export.capturing.preparing import traced_module
from cos_export.capturing.tracing import Traced
from cos_export.datasets import Dataset, folder_sizes, is_named
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork

__all__ = ["DataParts", "data_parts"]


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
    source: Source,
    spec: str,
    choices: Choices,
    *,
    calibration: str | None = None,
    held_out: int | None = None,
    mean: Channels = None,
    std: Channels = None,
    size: tuple[int, int] | None = None,
) -> DataParts:
    """The data for a conversion of `source`.

    A named data set has a training part to calibrate on. Of a file, what needs data gets the first images, at most
    half of them, and the accuracy is measured on the rest, unless there is another file to calibrate on.

    Args:
        source: What is to be converted.
        spec: A data set as `load_dataset` takes it.
        choices: Of the user.
        calibration: Another data set to calibrate on, all of whose images may serve. Its labels are left aside if it
            has other classes.
        held_out: Images to compare on, by default a quarter as many as there are to calibrate on.
        mean: Of each channel, to be subtracted.
        std: Of each channel, to be divided by.
        size: (height, width) that the images of folders are resized to.

    Raises:
        CaptureError: The module holds something that cannot be converted.
        InputError: There is no such data set or method, the source does not take its images, or they are too few.
    """
    needed = choices.method.needs_data or bool(choices.candidates) or choices.weight_bits is not None
    sizes = folder_sizes(size, spec, calibration)
    whole = source_dataset(source, spec, "test", mean, std, size=sizes[0])
    check_frames(whole, choices.steps, choices.method)
    traced = None
    if not needed:
        if isinstance(source, SpikingNetwork):
            return DataParts(None, whole)
        options = check_options(choices.levels, None, choices.max_pool, assume_thresholds=True)
        traced = traced_module(source, whole.first(1).mean_over_time(), options)
        if not observed_relus(traced, options, torch.device("cpu")).keys:
            return DataParts(None, whole, traced=traced)
    samples = choices.samples or CALIBRATION_SAMPLES
    if is_named(spec) or calibration is not None:
        # A named data set is never resized.
        pool = source_dataset(source, calibration or spec, "train", mean, std, size=sizes[1])
        if None not in (pool.class_names, whole.class_names) and pool.class_names != whole.class_names:
            # Numbers of other classes, or of one folder of all images, must not decide between methods.
            pool = replace(pool, labels=None, class_names=None)
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
