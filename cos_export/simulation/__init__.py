"""The PyTorch reference run."""

from cos_export.simulation.artificial_run import ann_logits
from cos_export.simulation.per_sample import Observer, PerSampleCalibration
from cos_export.simulation.readout import mean_readout
from cos_export.simulation.simulate import simulate

__all__ = [
    "Observer",
    "PerSampleCalibration",
    "ann_logits",
    "mean_readout",
    "simulate",
]
