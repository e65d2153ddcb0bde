"""The calibration stage: one module per method, and the stage that streams data through them."""

from calibration.bias import BiasCorrection
from calibration.cos import COS
from calibration.ftbc import FTBC
from calibration.half import Half
from calibration.mean_matching import MeanMatching
from calibration.opi import OPI
from calibration.rmp import RMP
from calibration.srp import SRP
from calibration.stage import (
    PER_SAMPLE,
    STATIC,
    StaticMethod,
    calibrate,
    method_names,
    needs_data,
    per_sample_method,
    static_method,
)
from calibration.static import Static

__all__ = [
    "COS",
    "FTBC",
    "OPI",
    "PER_SAMPLE",
    "RMP",
    "SRP",
    "STATIC",
    "BiasCorrection",
    "Half",
    "MeanMatching",
    "Static",
    "StaticMethod",
    "calibrate",
    "method_names",
    "needs_data",
    "per_sample_method",
    "static_method",
]
