"""How far the logits of one network are from those of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cos_export.network import FloatArray

__all__ = ["agreement", "divergence"]


def divergence(reference: FloatArray, logits: FloatArray) -> float:
    """The mean of KL(softmax(reference) || softmax(logits)) over samples, in nats.

    Args:
        reference: (samples, classes).
        logits: (samples, classes).
    """
    true, other = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(true) * (true - other)).sum(1).mean())


def agreement(one: FloatArray, other: FloatArray) -> float:
    """The share of samples whose largest of (samples, classes) logits is that of the same class."""
    return float((one.argmax(1) == other.argmax(1)).mean())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
