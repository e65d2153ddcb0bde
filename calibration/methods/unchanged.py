"""No calibration: the initial potentials of a NIR file as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calibration.methods.method import CalibrationRun, StaticMethod
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork

__all__ = ["Unchanged"]


@dataclass(frozen=True)
class Unchanged(StaticMethod):
    """What a conversion does with a network that was read and not captured, unless a method is named: nothing."""

    name: ClassVar[str] = "none"

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Refused: there is nothing to set."""
        raise InputError("'none' is a choice of conversions that start from a NIR file. Leave the calibration out.")
