"""From what reaches the Output in each step to logits."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_export.network import Quantisation
from cos_export.simulation.fixed_point import readout_factors

__all__ = ["mean_readout"]


def mean_readout(outputs: Tensor, steps: int, quantisation: Quantisation | None = None) -> Tensor:
    """The mean of the first t outputs for t = 1..steps, in the unit of the logits: (steps, batch, classes).

    Args:
        outputs: What reaches the Output, (steps or 1, batch, classes).
        steps: T.
        quantisation: Of a network of integers, whose sums one product for each t brings to the logits.
    """
    held = outputs.expand(steps, *outputs.shape[1:]) if len(outputs) == 1 else outputs
    sums, ones = held.cumsum(0), [1] * (held.ndim - 1)
    if quantisation is None:
        return sums / torch.arange(1, steps + 1, device=held.device, dtype=held.dtype).reshape(-1, *ones)
    factors = torch.from_numpy(readout_factors(quantisation, steps)).to(held.device, held.dtype)
    return sums * factors.reshape(-1, *ones)
