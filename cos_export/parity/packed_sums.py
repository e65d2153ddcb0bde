"""Sums of integers in float64, two samples in one number.

float64 holds 53 bits, and the sums of a network of integers need less than half of them. So two samples travel
together, and a convolution in float64, which is slow on a CPU, is computed half as often:

    W (x + B y) + b = (W x + b) + B (W y),     |W x + b| < B / 2,     every partial sum below 2^53

With B a power of two the second sum is what rounding to the nearest multiple of B leaves, the first the rest. That is
exact, in whatever order the terms are added.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["paired"]

_LARGEST = 2.0**53
"""Up to it float64 holds every integer."""


def paired(apply: Callable[[Tensor], Tensor], absolute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`apply` on integers, with half as many sums where they fit.

    Args:
        apply: (samples, ...) to (samples, ...) in float64: a synapse W x + b of integers W and b.
        absolute: The same of their absolute values, |W| x + |b|.

    Returns:
        The same function of integers.
    """

    def evaluate(values: Tensor) -> Tensor:
        half = len(values) // 2
        if half == 0:
            return apply(values)
        # No partial sum, whatever its order, is larger than if all inputs were the largest and all signs agreed.
        low, high = torch.aminmax(values)
        largest = torch.maximum(-low, high)
        reach = float(absolute(torch.ones_like(values[:1]) * largest).amax())
        base = 2.0 ** math.ceil(math.log2(2.0 * reach + 1.0))
        if reach * (1.0 + base) >= _LARGEST:
            return apply(values)
        offset = apply(torch.zeros_like(values[:1]))
        both = apply(torch.add(values[:half], values[half : 2 * half], alpha=base))
        second = (both / base).round_()
        first = both.sub_(second, alpha=base)
        parts = [first, second.add_(offset)]
        if 2 * half < len(values):
            parts.append(apply(values[2 * half :]))
        return torch.cat(parts)

    return evaluate
