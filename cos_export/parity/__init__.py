"""Parity: whether a target fires the spikes that the reference fires, and if not, whether rounding explains it."""

from cos_export.parity.comparison import Divergence, LayerComparison, compare
from cos_export.parity.local import LocalLayer, LocalResult, Violation, check_local
from cos_export.parity.verification import ParityResult, TargetParity, verify

__all__ = [
    "Divergence",
    "LayerComparison",
    "LocalLayer",
    "LocalResult",
    "ParityResult",
    "TargetParity",
    "Violation",
    "check_local",
    "compare",
    "verify",
]
