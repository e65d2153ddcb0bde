"""The calibration stage: one module per method, and the stage that streams data through them."""

from calibration.methods import METHODS
from calibration.methods.bias import BiasCorrection
from calibration.methods.cos import COS
from calibration.methods.ftbc import FTBC
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.method import CalibrationRun, Method, PerSampleMethod, StaticMethod
from calibration.methods.opi import OPI
from calibration.methods.rmp import RMP
from calibration.methods.srp import SRP
from calibration.methods.static import Static
from calibration.records import method_from_record, method_named, method_names, method_of
from calibration.stage import DEFAULT_METHOD, calibrate

__all__ = [
    "COS",
    "DEFAULT_METHOD",
    "FTBC",
    "METHODS",
    "OPI",
    "RMP",
    "SRP",
    "BiasCorrection",
    "CalibrationRun",
    "Half",
    "MeanMatching",
    "Method",
    "PerSampleMethod",
    "Static",
    "StaticMethod",
    "calibrate",
    "method_from_record",
    "method_named",
    "method_names",
    "method_of",
]
