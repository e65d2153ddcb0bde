"""One module per calibration method, and all of them by name."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.methods.bias import BiasCorrection
from calibration.methods.cos import COS
from calibration.methods.ftbc import FTBC
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.method import Method
from calibration.methods.opi import OPI
from calibration.methods.rmp import RMP
from calibration.methods.srp import SRP
from calibration.methods.static import Static

__all__ = ["METHODS"]

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (Half, OPI, RMP, MeanMatching, BiasCorrection, FTBC, Static, COS, SRP)  # the order of every list
}
"""Every method by name, static ones first."""
