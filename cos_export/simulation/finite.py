"""Sums that float32 cannot hold are refused."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_export.errors import NetworkError

__all__ = ["check_finite"]


def check_finite(what: str, values: Tensor) -> None:
    """Refuses values of which one is infinite or not a number.

    Args:
        what: What they are, as a message begins with it.
        values: Of any shape.

    Raises:
        NetworkError: One is.
    """
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise NetworkError(
            f"{what} are beyond what float32 holds (inf or nan): the weights, thresholds or images are too large. "
            "Scale them down."
        )
