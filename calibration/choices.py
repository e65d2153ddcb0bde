"""What the user may choose about a conversion, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.methods.rmp import NEEDS_FLOAT32, RMP
from calibration.methods.static import Static
from calibration.stage import per_sample_method, static_method
from cos_export.capturing.options import MaxPool
from cos_export.errors import InputError

__all__ = ["CALIBRATION_SAMPLES", "QUANTISATIONS", "Choices", "check_method", "tunes_weights"]

CALIBRATION_SAMPLES = 1000
"""Images to calibrate on unless the user says otherwise."""


QUANTISATIONS = {"per-channel": "per_channel", "power-of-two": "power_of_two", "even-weights": "even_weights"}
"""What can be chosen about integers, and what `quantise` calls it."""


@dataclass(frozen=True)
class Choices:
    """What the user may choose about a conversion.

    Attributes:
        method: The calibration method, by name.
        steps: T to calibrate for and to deploy at.
        rho: Extra steps of a per-sample method.
        samples: Images to calibrate on, or None for up to `CALIBRATION_SAMPLES`.
        levels: L of quantised activations of the user's own that do not say it.
        max_pool: Whether max pooling is refused or becomes average pooling.
        thresholds: How ReLUs without an upper bound get a threshold: "mmse", "percentile" or "maximum".
        per_channel: Whether each channel gets a threshold of its own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        options: Attributes of a static method, such as seed.
        batch_size: Images computed at once while the method reads statistics.
        numerics: "float32", or "int8" to quantise the network before it is calibrated.
        quantisation: Choices about the integers, of `QUANTISATIONS`.
    """

    method: str
    steps: int
    rho: int = 4
    samples: int | None = None
    levels: int | None = None
    max_pool: MaxPool = "refuse"
    thresholds: str = "mmse"
    per_channel: bool = False
    device: str = "auto"
    options: Mapping[str, object] = field(default_factory=dict)
    batch_size: int = 64
    numerics: str = "float32"
    quantisation: tuple[str, ...] = ()


def check_method(choices: Choices) -> None:
    """Refuses a method, numerics or an option that there is not, and a method that has no int8, before any work.

    Raises:
        InputError: There is none of that name, or the two do not go together.
    """
    if choices.numerics not in ("float32", "int8"):
        raise InputError(f"numerics must be float32 or int8, and is {choices.numerics!r}.")
    unknown = [name for name in choices.quantisation if name not in QUANTISATIONS]
    if unknown or (choices.quantisation and choices.numerics != "int8"):
        known = ", ".join(QUANTISATIONS)
        raise InputError(f"With numerics int8 can be chosen {known}; not {', '.join(unknown or choices.quantisation)}.")
    if per_sample_method(choices.method, choices.rho) is None:
        method = static_method(choices.method, choices.options)
        if choices.numerics == "int8" and isinstance(method, RMP):
            raise InputError(NEEDS_FLOAT32)
    elif choices.options:
        chosen = ", ".join(choices.options)
        raise InputError(f"{chosen} can be chosen for a static method, and {choices.method} calibrates per sample.")


def tunes_weights(choices: Choices) -> bool:
    """Whether the method changes weights by gradient, which a network of integers does not have."""
    if per_sample_method(choices.method, choices.rho) is not None:
        return False
    method = static_method(choices.method, choices.options)
    return isinstance(method, Static) and "weight" in method.tune
