"""The calibration stage: one module per method, and the stage that streams data through them."""

from calibration.methods.bias import BiasCorrection
from calibration.methods.cos import COS
from calibration.methods.ftbc import FTBC
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.opi import OPI
from calibration.methods.rmp import RMP
from calibration.methods.srp import SRP
from calibration.methods.static import Static
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
