"""The search for the cheapest deployment that keeps the accuracy: measured on images held out, and never on others."""

from calibration.search.candidates import DEFAULT_METHODS, DEFAULT_THRESHOLDS, Deployment, deployments
from calibration.search.outcome import MINIMISED, SearchOutcome, outcome
from calibration.search.searching import search
from calibration.search.state import Measured

__all__ = [
    "DEFAULT_METHODS",
    "DEFAULT_THRESHOLDS",
    "MINIMISED",
    "Deployment",
    "Measured",
    "SearchOutcome",
    "deployments",
    "outcome",
    "search",
]
