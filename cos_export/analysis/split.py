"""The error of a layer's rates, split into clipping, levels and timing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

__all__ = ["CAUSES", "Split", "SplitSums"]

CAUSES = ("clipping", "levels", "timing")


@dataclass(frozen=True)
class Split:
    """The mean square error of a layer over its neurons and the images, in units of theta^2.

    With u the unclipped activation, c the clipped, q the one of L = T levels and s = n / T the rate of the spikes, all
    divided by theta, s - u = (c - u) + (q - c) + (s - q), hence exactly

        total = E[(s - u)^2] = clipping + levels + timing + cross

    Attributes:
        clipping: E[(c - u)^2].
        levels: E[(q - c)^2].
        timing: E[(s - q)^2].
        cross: 2 E[(c - u)(q - c) + (c - u)(s - q) + (q - c)(s - q)], which may be negative: errors that cancel.
        total: E[(s - u)^2].
    """

    clipping: float
    levels: float
    timing: float
    cross: float
    total: float

    @property
    def cause(self) -> str:
        """The largest of the three, of `CAUSES`; "none" where all are 0."""
        parts = {name: float(getattr(self, name)) for name in CAUSES}
        largest = max(parts, key=lambda name: parts[name])
        return largest if parts[largest] > 0 else "none"

    def to_dict(self) -> dict[str, float | str]:
        """Plain JSON values."""
        return {**asdict(self), "cause": self.cause}


class SplitSums:
    """Running sums of one layer, in float64."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._count = 0

    def add(self, unclipped: Tensor, clipped: Tensor, quantised: Tensor, spiking: Tensor) -> None:
        """Takes in a batch: u, c, q and s, each (batch, ...)."""
        u, c, q, s = (values.double() for values in (unclipped, clipped, quantised, spiking))
        clipping, levels, timing = c - u, q - c, s - q
        cross = clipping * levels + (clipping + levels) * timing
        squares = [error.square().sum() for error in (clipping, levels, timing)]
        self._sums += torch.stack([*squares, 2 * cross.sum(), (s - u).square().sum()])
        self._count += u.numel()

    def result(self) -> Split:
        """The means."""
        return Split(*(self._sums / self._count).tolist())
