"""How far the logits of one network are from those of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cos_export.decisions import class_logits, decisions
from cos_export.network import FloatArray

__all__ = ["agreement", "divergence"]


def divergence(reference: FloatArray, logits: FloatArray) -> float:
    """The mean of KL(softmax(reference) || softmax(logits)) over samples, in nats.

    Args:
        reference: (samples, classes); one logit z stands for (0, z).
        logits: Likewise.
    """
    true, other = _log_softmax(class_logits(reference)), _log_softmax(class_logits(logits))
    return float((np.exp(true) * (true - other)).sum(1).mean())


def agreement(one: FloatArray, other: FloatArray) -> float:
    """The share of samples for which (samples, classes) logits decide for the same class."""
    return float((decisions(one) == decisions(other)).mean())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
