"""Which class a readout decides for: the largest logit, or, of one logit for two classes, its sign."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["class_count", "class_logits", "decisions"]


def class_count(outputs: int) -> int:
    """How many classes a readout of so many logits tells apart: one logit tells two."""
    return max(outputs, 2)


@overload
def class_logits(logits: NDArray[Any]) -> NDArray[Any]: ...
@overload
def class_logits(logits: Tensor) -> Tensor: ...
def class_logits(logits: NDArray[Any] | Tensor) -> NDArray[Any] | Tensor:
    """One logit for each class: (0, z) for a single logit z, for softmax(0, z) = (1 - sigmoid(z), sigmoid(z)).

    Args:
        logits: (..., classes), or (..., 1).

    Returns:
        (..., classes), at least two.
    """
    if logits.shape[-1] != 1:
        return logits
    if isinstance(logits, Tensor):
        return functional.pad(logits, (1, 0))
    return np.concatenate([np.zeros_like(logits), logits], axis=-1)


def decisions(logits: NDArray[Any]) -> NDArray[np.int64]:
    """The class of the largest logit; of one logit z, class 1 where z > 0.

    Args:
        logits: (..., classes), or (..., 1).

    Returns:
        (...,).
    """
    chosen: NDArray[np.int64] = class_logits(logits).argmax(axis=-1)
    return chosen
