"""Thresholds of ReLU layers from data: how far up an activation is told apart before it is clipped.

A neuron of threshold theta stands for clip(z, 0, theta), and tells T + 1 values of it apart in T steps. Let a be the
positive activations of a layer, or of a channel, over the calibration images:

    maximum      theta = max a                                            Diehl et al., IJCNN 2015
    percentile   theta = the p-th percentile of a                         Rueckauer et al., Frontiers Neurosci. 2017
    mmse         theta = argmin over the grid of E[(Q(a; theta) - a)^2]   SNNC: Li et al., ICML 2021
                 Q(a; theta) = theta / T * clip(floor(a T / theta + 1/2), 0, T)
                 grid: k / 100 * max a for k = 1..100

SNNC quantises with the floor, for neurons that start at zero; ours start at theta / 2, which rounds.

The images are read in one pass for the maximum, and for the other methods in a second one into a histogram of 2,048
bins of equal width between 0 and the maximum, so that the memory does not grow with the images. A percentile is
therefore the upper edge of the bin that it falls into, at most max a / 2048 too high; the mean square error is that
of the bins' centres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cos_export.bounds import MAX_STEPS, MOST_BATCH
from cos_export.capturing.activation_observer import Observed, observed_relus
from cos_export.capturing.options import MaxPool, check_options
from cos_export.capturing.preparing import traced_module
from cos_export.datasets import ImageArray, Images, image_array
from cos_export.device import resolve_device
from cos_export.errors import InputError
from cos_export.module_logits import images_at_once
from cos_export.network import FloatArray
from cos_export.progress import Progress, silent
from cos_export.whole_number import whole_number

__all__ = [
    "BINS",
    "GRID",
    "METHODS",
    "Histogram",
    "maximum",
    "mmse",
    "observed_thresholds",
    "percentile",
    "relu_thresholds",
]

BINS = 2048
"""Of a histogram."""

GRID = 100
"""Thresholds that `mmse` tries."""

METHODS = ("mmse", "percentile", "maximum")
"""By name."""

DoubleArray = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """How often each positive activation occurred: bin b holds those in (top b / bins, top (b + 1) / bins].

    Attributes:
        counts: (rows, bins), one row for a whole layer or one for each channel.
        top: The highest activation, (rows,).
    """

    counts: NDArray[np.int64]
    top: DoubleArray


Rule = Callable[[Histogram], DoubleArray]
"""From how often activations occurred to a threshold for each row."""


def maximum(histogram: Histogram) -> DoubleArray:
    """Theta = max a: (rows,), 0 for a row that was never active.

    Source: Diehl et al., "Fast-classifying, high-accuracy spiking deep networks through weight and threshold
    balancing", IJCNN 2015.
    """
    return histogram.top


def percentile(histogram: Histogram, p: float = 99.9) -> DoubleArray:
    """Theta = the lowest bin edge that at least p percent of the positive activations do not exceed.

    Args:
        histogram: Of the positive activations: zeros are never clipped, and do not count.
        p: In (0, 100].

    Returns:
        (rows,), 0 for a row that was never active.

    Source: Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven Networks for
    Image Classification", Frontiers in Neuroscience 2017.
    """
    reached = histogram.counts.cumsum(axis=1)
    # 99.9 % of 1,000 is 999, and not 999.0000000000001.
    needed = np.ceil(reached[:, -1:] * (p / 100) - 1e-9)
    bins = histogram.counts.shape[1]
    edge = (reached < needed).sum(axis=1) + 1
    result: DoubleArray = histogram.top * np.minimum(edge, bins) / bins
    return result


def mmse(histogram: Histogram, steps: int, grid: int = GRID) -> DoubleArray:
    """Theta = argmin over k / grid * max a, k = 1..grid, of the mean of (Q(a; theta) - a)^2.

    Q(a; theta) = theta / T * clip(floor(a T / theta + 1/2), 0, T) is what a neuron that starts at theta / 2 makes of
    a constant current a in T steps.

    Args:
        histogram: Of the positive activations: Q(0) = 0 for every theta.
        steps: T.
        grid: How many thresholds to try.

    Returns:
        (rows,), 0 for a row that was never active. Of equally good ones the highest.

    Source: Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration",
    ICML 2021.
    """
    bins = histogram.counts.shape[1]
    # In units of the maximum the grid and the centres are the same for all rows, and so are the errors.
    centres = (np.arange(bins) + 0.5) / bins
    candidates = np.arange(grid, 0, -1)[:, None] / grid
    quantised = candidates / steps * np.clip(np.floor(centres * steps / candidates + 0.5), 0, steps)
    errors = histogram.counts.astype(np.float64) @ ((quantised - centres) ** 2).T
    result: DoubleArray = histogram.top * candidates[errors.argmin(axis=1), 0]
    return result


def relu_thresholds(
    model: nn.Module,
    images: Images,
    method: str = "mmse",
    *,
    per_channel: bool = False,
    steps: int = 8,
    p: float = 99.9,
    max_pool: MaxPool = "exact",
    device: str | torch.device = "auto",
    batch_size: int = 64,
    progress: Progress = silent,
) -> dict[str, FloatArray]:
    """Thresholds for the ReLUs of a module that have no upper bound, for `cos_export.capture`.

    Args:
        model: A trained module that `capture` takes but for the missing thresholds. It is left untouched.
        images: Calibration images as the module takes them, in any form that `cos_export.simulate` takes; labels are
            left aside. A module knows no normalisation: pixels of uint8 are divided by 255 and no more. They go through
            the module in batches, once for "maximum" and else twice.
        method: "mmse", "percentile" or "maximum".
        per_channel: Whether each channel gets a threshold of its own.
        steps: T that the network will run for: "mmse" depends on it.
        p: The percentile.
        max_pool: As it will be for `capture`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Samples computed at once.
        progress: Told of each batch.

    Returns:
        By ReLU, float32, () or (channels,). A channel that was never active gets the highest of its layer.

    Raises:
        CaptureError: The module holds something else that cannot be converted.
        InputError: The images or an option cannot be used, or a ReLU was never active.
        UnavailableError: The device is not there.
    """
    choose = threshold_rule(method, steps, p)
    batch_size = whole_number("batch_size", batch_size, 1, MOST_BATCH)
    array = image_array(images)
    options = check_options(max_pool=max_pool, assume_thresholds=True)
    observed = observed_relus(traced_module(model, array[:1], options), options, resolve_device(device))
    return observed_thresholds(
        observed, array, choose, per_channel=per_channel, batch_size=batch_size, progress=progress
    )


def observed_thresholds(
    observed: Observed,
    images: Images,
    choose: Rule,
    *,
    per_channel: bool,
    batch_size: int = 64,
    progress: Progress = silent,
) -> dict[str, FloatArray]:
    """`relu_thresholds` of a module whose ReLUs are observed already, by a rule from `threshold_rule`.

    Raises:
        InputError: The images cannot be used, or a ReLU was never active.
    """
    if not observed.keys:
        return {}
    array = image_array(images)
    batch_size = images_at_once(array, batch_size)
    tops = _maxima(observed, array, per_channel, batch_size, progress)
    counts = {} if choose is maximum else _counts(observed, array, tops, batch_size, progress)
    chosen = {}
    for key, top in tops.items():
        histogram = Histogram(counts.get(key, np.zeros((len(top), 1), np.int64)), top)
        chosen[key] = _filled(key, choose(histogram), per_channel, len(array))
    return chosen


def threshold_rule(name: str, steps: int, p: float = 99.9) -> Rule:
    """The method of that name.

    Raises:
        InputError: There is none, or `steps` or `p` is out of range.
    """
    steps = whole_number("steps", steps, 1, MAX_STEPS)
    if not 0 < p <= 100:
        raise InputError(f"The percentile must be above 0 and at most 100, and is {p}.")
    if name == "maximum":
        return maximum
    if name == "percentile":
        return lambda histogram: percentile(histogram, p)
    if name == "mmse":
        return lambda histogram: mmse(histogram, steps)
    raise InputError(f"There is no threshold method {name!r}. There are {', '.join(METHODS)}.")


def _rows(activations: Tensor, per_channel: bool) -> Tensor:
    """(batch, channels, ...) as (rows, samples), one row for each channel or one for all."""
    return activations.transpose(0, 1).flatten(1) if per_channel else activations.reshape(1, -1)


def _maxima(
    observed: Observed, images: ImageArray, per_channel: bool, batch_size: int, progress: Progress
) -> dict[str, DoubleArray]:
    """The highest activation of each ReLU, by row, in the order in which they run."""
    tops: dict[str, Tensor] = {}

    def watch(key: str, activations: Tensor) -> None:
        highest = _rows(activations, per_channel).amax(dim=1)
        tops[key] = torch.maximum(tops[key], highest) if key in tops else highest.clamp(min=0.0)

    observed.run(images, watch, batch_size=batch_size, stage="finding the highest activations", progress=progress)
    maxima = {key: top.cpu().to(torch.float64).numpy() for key, top in tops.items()}
    for key, top in maxima.items():
        if not np.isfinite(top).all():
            raise InputError(f"The activations of {key!r} are not finite on these images. Look for nan in the weights.")
    return maxima


def _counts(
    observed: Observed, images: ImageArray, tops: dict[str, DoubleArray], batch_size: int, progress: Progress
) -> dict[str, NDArray[np.int64]]:
    """The histogram of each ReLU, by row."""
    device = observed.device
    # The first of each row counts what is not active.
    width = BINS + 1
    counts = {key: torch.zeros(len(top) * width, dtype=torch.int64, device=device) for key, top in tops.items()}
    scale = {
        key: torch.from_numpy(np.divide(BINS, top, out=np.zeros_like(top), where=top > 0)).to(device)[:, None]
        for key, top in tops.items()
    }

    def watch(key: str, activations: Tensor) -> None:
        rows = _rows(activations, len(tops[key]) > 1)
        bins = (rows.clamp(min=0).to(torch.float64) * scale[key]).ceil_().clamp_(max=BINS).long()
        if len(rows) > 1:
            bins += torch.arange(len(rows), device=device)[:, None] * width
        counts[key] += torch.bincount(bins.flatten(), minlength=len(counts[key]))

    observed.run(images, watch, batch_size=batch_size, stage="counting activations", progress=progress)
    return {key: count.cpu().numpy().reshape(-1, width)[:, 1:] for key, count in counts.items()}


def _filled(key: str, thresholds: DoubleArray, per_channel: bool, samples: int) -> FloatArray:
    """The thresholds as float32, those of silent channels filled in."""
    highest = thresholds.max()
    if not highest > 0:
        raise InputError(
            f"The ReLU {key!r} is never active on these {samples} images, so they tell nothing about its threshold. "
            "Give more images, or a threshold for it by hand."
        )
    filled = np.where(thresholds > 0, thresholds, highest).astype(np.float32)
    return filled if per_channel else filled.reshape(())
