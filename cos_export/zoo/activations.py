"""The activation of the zoo's networks."""

from __future__ import annotations

from torch import nn

from cos_export.qcfs import QCFS

__all__ = ["activation"]

_THRESHOLD = 2.0
# Batch norm hands each activation values of about unit variance: two standard deviations are one threshold.


def activation(levels: int | None) -> nn.Module:
    """A `QCFS` of L = `levels`, or a ReLU if that is None."""
    return nn.ReLU() if levels is None else QCFS(levels, _THRESHOLD)
