"""The PyTorch reference run."""

from cos_export.simulation.simulate import (
    Observer,
    PerSampleCalibration,
    ann_logits,
    mean_readout,
    simulate,
)

__all__ = [
    "Observer",
    "PerSampleCalibration",
    "ann_logits",
    "mean_readout",
    "simulate",
]
