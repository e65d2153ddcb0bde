"""Whether a module and the network captured from it compute the same, as far as rounding lets them.

Both compute in float32, the network with batch norms and thresholds folded into its weights, so their sums round
differently. Where all is continuous that shifts the logits by a few units in the last place. Where activations are
quantised, a sum within rounding of a step falls to the other side of it, and a whole level goes through the network.
How far that reaches no formula says: it depends on the network and on the image. So it is measured: the module is
run again with each of its numbers, and of the image's, off by a random share of up to 2^-19, and each of its tensors as
a whole by as much,

    w' = w (1 + 2^-20 (u + u_tensor)),    u, u_tensor uniform in [-1, 1]

which is eight to sixteen units in the last place of float32 and more than folding, or another order of a sum, moves
anything. A step that rounding can flip, this flips in about every second run. What it moves the logits of an image by
is what rounding explains there, and there are twelve runs, or as many as explain what is there; a module that draws
random numbers, keeps state or sees its own capture is off by what no rounding explains.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cos_export.capturing import Captured
from cos_export.capturing.tail import flat
from cos_export.datasets import ImageArray
from cos_export.device import resolve_device
from cos_export.divergence import agreement
from cos_export.errors import ParityError
from cos_export.module_logits import module_logits
from cos_export.network import FloatArray
from cos_export.progress import Progress, silent
from cos_export.shared_logits import shared_ann_logits, shared_module_logits

__all__ = ["check_agreement"]

_SMOOTH = 2.0**-17
"""Of the largest logit: below it nothing needs an explanation. 64 units in the last place of float32."""

_STAGE = "measuring what rounding explains"
_SHIFT = 2.0**-20
_RUNS = 12
_JUDGED = 32
_MARGIN = 4.0
"""Several steps may flip together in the network and one by one in the runs."""


def check_agreement(
    module: nn.Module, captured: Captured, images: ImageArray, *, device: str = "auto", progress: Progress = silent
) -> FloatArray:
    """Refuses a network that does not compute what its module does on these images.

    ReLUs are compared without the clipping at their thresholds, which is not a fault of the capture. Where max pooling
    was replaced, the network is meant to be another, and nothing is compared.

    Args:
        module: In its own words; left as it is.
        captured: What was captured from it.
        images: (samples, ...).
        device: Where to run.
        progress: Told of each batch.

    Returns:
        What the module decides by, (samples, classes): its logits, or what it makes of them at its end.

    Raises:
        ParityError: Their logits differ beyond rounding.
    """
    where = resolve_device(device)
    outputs = flat(shared_module_logits(module, images, device=where, progress=progress))
    expected, logits = outputs.numpy(), captured.tail.logits(outputs).numpy()
    if captured.replaced:
        return logits
    readout = shared_ann_logits(captured.network, images, device=where, unclipped=captured.unbounded, progress=progress)
    actual = captured.tail(torch.from_numpy(readout)).numpy()
    off = _distance(actual, expected)
    smooth = _SMOOTH * float(np.abs(expected).max())
    # Written so that nan is beyond it, too.
    if not (beyond := ~(off <= smooth)).any():
        return logits
    # The worst, and as many that nobody chose, by whose mean a small fault is told from a rare flip.
    worst = np.argsort(-np.nan_to_num(off, nan=np.inf))[:_JUDGED]
    spread = np.unique(np.linspace(0, len(off) - 1, _JUDGED).astype(np.int64))
    highest, total = np.zeros(len(off)), np.zeros(len(off))
    for moved in _rounding_runs(module, images, np.union1d(worst, spread), where, progress):
        highest, total = np.maximum(highest, moved), total + moved
        # Both only grow, so what they explain now is explained after all runs, too.
        explained = bool((off[worst] <= _MARGIN * highest[worst] + smooth).all())
        if explained and off[spread].mean() <= _MARGIN * total[spread].mean() / _RUNS + smooth:
            progress(_STAGE, _RUNS, _RUNS)
            return logits
    first = int(worst[np.argmax(off[worst] - highest[worst])])
    same = agreement(captured.tail.logits(torch.from_numpy(actual)).numpy(), logits)
    raise ParityError(
        f"The network captured from {type(module).__name__} does not compute what the module does: their logits differ "
        f"on {int(beyond.sum())} of {len(off)} images, on image {first} by {off[first]:.3g}, where rounding explains "
        f"{float(highest.max()):.2g} at most (the largest logit is {np.abs(expected).max():.3g}), and they choose the "
        f"same class for {100 * same:.1f} % of the images. So forward depends on something that no capture sees: "
        "random numbers, state kept between calls, or whether it is being exported. Make it compute the same from the "
        "same images whenever it is called."
    )


def _outputs(module: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    return flat(module_logits(module, images, device=device))


def _distance(one: FloatArray, other: FloatArray) -> NDArray[np.float64]:
    """The largest difference of each sample's logits: (samples,)."""
    largest: NDArray[np.float64] = np.abs(one.astype(np.float64) - other).max(axis=1)
    return largest


def _rounding_runs(
    module: nn.Module, images: ImageArray, chosen: NDArray[np.int64], device: torch.device, progress: Progress
) -> Iterator[NDArray[np.float64]]:
    """How far each run with every number a little off moves the logits of the `chosen` images: (samples,), else 0."""
    generator, shown = torch.Generator().manual_seed(0), torch.from_numpy(images[chosen])
    expected = _outputs(module, shown, device).numpy()
    for run in range(_RUNS):
        progress(_STAGE, run, _RUNS)
        other = copy.deepcopy(module).cpu()
        with torch.no_grad():
            for tensor in (*other.parameters(), *other.buffers()):
                if tensor.is_floating_point():
                    tensor.mul_(_factors(tensor, generator))
        shifted = shown * _factors(shown, generator)
        moved = np.zeros(len(images))
        moved[chosen] = _distance(_outputs(other, shifted, device).numpy(), expected)
        yield moved
    progress(_STAGE, _RUNS, _RUNS)


def _factors(tensor: Tensor, generator: torch.Generator) -> Tensor:
    each, whole = (2 * torch.rand(shape, generator=generator) - 1 for shape in (tensor.shape, ()))
    return 1 + _SHIFT * (each + whole)
