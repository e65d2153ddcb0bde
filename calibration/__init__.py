"""The calibration stage: one module per method, and the stage that streams data through them."""

from calibration.cos import COS
from calibration.half import Half
from calibration.mean_matching import MeanMatching
from calibration.srp import SRP
from calibration.stage import (
    PER_SAMPLE,
    STATIC,
    StaticMethod,
    calibrate,
    method_names,
    needs_data,
    per_sample_method,
)
from calibration.static import Static

__all__ = [
    "COS",
    "PER_SAMPLE",
    "SRP",
    "STATIC",
    "Half",
    "MeanMatching",
    "Static",
    "StaticMethod",
    "calibrate",
    "method_names",
    "needs_data",
    "per_sample_method",
]
