"""Stand-ins for activations of the user's own that were recognised, which write into their input as those do.

Who reads that memory again, under another name or because the result is dropped, reads what PyTorch would have left
there: the graph holds the write, and the walk refuses it where a later reader would miss it.
"""

from __future__ import annotations

import math
from enum import Enum, auto

from torch import Tensor, nn

from cos_export.qcfs import QCFS

__all__ = ["Overwrites", "OverwritingHardtanh", "OverwritingQCFS"]


class Overwrites(Enum):
    """What an activation leaves in the memory of its input."""

    NOTHING = auto()
    """What was there."""
    INPUT_BECOMES_RESULT = auto()
    """The result, which is that memory."""
    RESULT_IS_COPIED = auto()
    """The result, which has memory of its own as well."""
    SOMETHING_ELSE = auto()
    """Neither: an intermediate value."""


def _leave(overwrites: Overwrites, z: Tensor, result: Tensor) -> Tensor:
    """Does to `z` what `overwrites` says, and returns what the activation returns."""
    if overwrites is Overwrites.NOTHING:
        return result
    if overwrites is Overwrites.SOMETHING_ELSE:
        # Not a value that anyone may go on with: the walk refuses whoever reads it.
        z.fill_(math.nan)
        return result
    z.copy_(result)
    return z if overwrites is Overwrites.INPUT_BECOMES_RESULT else result


class OverwritingQCFS(QCFS):
    """A `QCFS` that writes into its input.

    Args:
        levels: L.
        overwrites: What it writes.
    """

    def __init__(self, levels: int, overwrites: Overwrites) -> None:
        super().__init__(levels)
        self.overwrites = overwrites

    def forward(self, z: Tensor) -> Tensor:
        """The activation of `z`."""
        return _leave(self.overwrites, z, super().forward(z))


class OverwritingHardtanh(nn.Hardtanh):
    """A ReLU with an upper bound that writes into its input.

    Args:
        bound: The upper bound.
        overwrites: What it writes.
    """

    def __init__(self, bound: float, overwrites: Overwrites) -> None:
        super().__init__(0.0, bound)
        self.overwrites = overwrites

    def forward(self, z: Tensor) -> Tensor:
        """The activation of `z`."""
        return _leave(self.overwrites, z, super().forward(z))
