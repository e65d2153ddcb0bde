"""The operator that every crop, zero padding and strided slice is written as."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["WINDOW", "window"]

torch.library.define("cos_export::window", "(Tensor x, int[] first, int[] step, int[] count) -> Tensor")


def window(x: Tensor, first: Sequence[int], step: Sequence[int], count: Sequence[int]) -> Tensor:
    """What lies at evenly spaced places along each axis but the first, and 0 where that is outside.

    result[b, i, ...] = x[b, first + step * i, ...]      i = 0 .. count - 1
    """
    for axis, (start, distance, number) in enumerate(zip(first, step, count, strict=True), 1):
        places = start + distance * torch.arange(number, device=x.device)
        inside = (places >= 0) & (places < x.shape[axis])
        shown = x.index_select(axis, places.clamp(0, x.shape[axis] - 1))
        x = shown * inside.to(x.dtype).reshape(-1, *[1] * (x.ndim - axis - 1))
    return x


torch.library.impl("cos_export::window", "CompositeImplicitAutograd", window)
WINDOW = torch.ops.cos_export.window.default
