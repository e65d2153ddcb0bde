"""The PyTorch reference run."""

from cos_export.simulation.artificial_run import ann_logits
from cos_export.simulation.per_sample import Observer, PerSampleCalibration, check_per_sample
from cos_export.simulation.readout import mean_readout
from cos_export.simulation.simulate import simulate

__all__ = [
    "Observer",
    "PerSampleCalibration",
    "ann_logits",
    "check_per_sample",
    "mean_readout",
    "simulate",
]
