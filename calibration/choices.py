"""What the user may choose about a conversion, and what is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calibration.methods.bias import BiasCorrection
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.methods.method import CalibrationRun, Method, PerSampleMethod, StaticMethod
from cos_export.capturing.options import MaxPool
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.dense_kernels import with_dense_kernels
from cos_export.network.schedule import Schedule, check_schedule
from cos_export.network.unit_thresholds import with_unit_thresholds
from cos_export.numerics import FLOAT32, INTEGERS, NUMERICS

__all__ = ["CALIBRATION_SAMPLES", "CHEAP", "QUANTISATIONS", "Auto", "Choices", "check_method"]

CALIBRATION_SAMPLES = 1000
"""Images to calibrate on unless the user says otherwise."""


CHEAP: tuple[StaticMethod, ...] = (Half(), MeanMatching(), BiasCorrection())
"""What `--method auto` chooses from: methods whose calibration takes a few runs over the images, by rising effort."""

QUANTISATIONS = {"per-channel": "per_channel", "power-of-two": "power_of_two", "even-weights": "even_weights"}
"""What can be chosen about integers, and what `quantise` calls it."""


@dataclass(frozen=True)
class Auto(StaticMethod):
    """No method was named: a conversion tries all of `CHEAP` and takes the closest (`calibration.selection`)."""

    name: ClassVar[str] = "auto"
    needs_data: ClassVar[bool] = True

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """Refused: a conversion calibrates by each of the methods, and this by none."""
        raise InputError(f"auto is a choice of conversions. Calibrate by {', '.join(one.name for one in CHEAP)}.")


@dataclass(frozen=True)
class Choices:
    """What the user may choose about a conversion.

    Attributes:
        method: The calibration method.
        steps: T to calibrate for and to deploy at.
        samples: Images to calibrate on, or None for up to `CALIBRATION_SAMPLES`.
        levels: L of quantised activations of the user's own that do not say it.
        max_pool: Whether max pooling becomes neurons over differences, average pooling, or is refused.
        thresholds: How ReLUs without an upper bound get a threshold: "mmse", "percentile" or "maximum".
        per_channel: Whether each channel gets a threshold of its own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Images computed at once while the method reads statistics.
        numerics: "float32", or "int8" to quantise the network before it is calibrated; of `cos_export.numerics`.
        quantisation: Choices about the integers, of `QUANTISATIONS`.
        schedule: "synchronous", or "layerwise": every layer integrates all T steps before it fires.
        unit_thresholds: Whether what is exported has thresholds of 1 (`with_unit_thresholds`).
        dense_kernels: Whether what is exported has dense square kernels alone (`with_dense_kernels`).
    """

    method: Method
    steps: int
    samples: int | None = None
    levels: int | None = None
    max_pool: MaxPool = "exact"
    thresholds: str = "mmse"
    per_channel: bool = False
    device: str = "auto"
    batch_size: int = 64
    numerics: str = FLOAT32
    quantisation: tuple[str, ...] = ()
    schedule: Schedule = "synchronous"
    unit_thresholds: bool = False
    dense_kernels: bool = False

    def in_written_form(self, network: SpikingNetwork) -> SpikingNetwork:
        """The network as it is exported.

        Raises:
            NetworkError: It has no such form.
        """
        network = with_dense_kernels(network) if self.dense_kernels else network
        return with_unit_thresholds(network) if self.unit_thresholds else network

    @property
    def candidates(self) -> tuple[StaticMethod, ...]:
        """The methods of which the closest on images held out is taken, if none was named."""
        return CHEAP if isinstance(self.method, Auto) else ()

    @property
    def weight_bits(self) -> int | None:
        """Bits of each weight if the network is to be one of integers, and else None."""
        return NUMERICS.get(self.numerics)

    @property
    def per_sample(self) -> PerSampleMethod | None:
        """The method, if it calibrates each sample while it runs."""
        return self.method if isinstance(self.method, PerSampleMethod) else None


def check_method(choices: Choices) -> None:
    """Refuses numerics and schedules that there are not, and a method that cannot do them, before any work.

    Raises:
        InputError: There are none of that name, or the two do not go together.
    """
    if choices.numerics not in NUMERICS:
        raise InputError(f"numerics must be {' or '.join(NUMERICS)}, and is {choices.numerics!r}.")
    unknown = [name for name in choices.quantisation if name not in QUANTISATIONS]
    if unknown or (choices.quantisation and choices.weight_bits is None):
        known = ", ".join(QUANTISATIONS)
        asked = ", ".join(unknown or choices.quantisation)
        raise InputError(f"With numerics {' or '.join(INTEGERS)} can be chosen {known}; not {asked}.")
    check_schedule(choices.schedule)
    if choices.unit_thresholds and choices.weight_bits is not None:
        raise InputError("The thresholds of integers are integers: unit thresholds are for float32.")
    refused = choices.method.refusal(choices.numerics) or choices.method.schedule_refusal(choices.schedule)
    if refused:
        raise InputError(refused)
