"""What the integers of a network in fixed point stand for, and how many bits they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cos_export.errors import NetworkError
from cos_export.numerics import (
    INPUT_BITS,
    INPUT_WIDTHS,
    WEIGHT_BITS,
    WEIGHT_WIDTHS,
    check_width,
    input_ranges,
    numerics_of,
    signed_range,
)

__all__ = ["Quantisation"]


@dataclass(frozen=True)
class Quantisation:
    """What the integers at the two ends of a network in fixed point stand for (docs/numerics.md).

    The images become 8-bit integers x, rounded half to even, and what reaches the Output becomes logits:

        x = clip(round(image * float32(1 / input_scale)), input_minimum, input_maximum)
        logits(t) = float32(readout_scale / t) * (sum over the first t steps of what reaches the Output)

    Attributes:
        input_scale: What 1 stands for in x.
        input_minimum: The least x that `input_bits` hold.
        input_maximum: The largest, of numbers with their sign if x may be negative, and else without.
        readout_scale: What 1 stands for at the Output.
        weight_bits: Of each weight, with its sign.
        input_bits: Of x.

    Raises:
        NetworkError: A scale is not a positive number, the range does not fit, or a width is not one of
            `cos_export.numerics`, which is said here and nowhere else.
    """

    input_scale: float
    input_minimum: int = input_ranges(INPUT_BITS)[0][0]
    input_maximum: int = input_ranges(INPUT_BITS)[0][1]
    readout_scale: float = 1.0
    weight_bits: int = WEIGHT_BITS
    input_bits: int = INPUT_BITS

    def __post_init__(self) -> None:
        check_width("weight_bits", self.weight_bits, WEIGHT_WIDTHS)
        check_width("input_bits", self.input_bits, INPUT_WIDTHS)
        for name in ("input_scale", "readout_scale"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0 and float(np.float32(value)) == value):
                raise NetworkError(f"{name} must be a positive float32 number, and is {value!r}.")
        low, high = self.input_minimum, self.input_maximum
        (least, largest), (_, unsigned) = signed_range(self.input_bits), input_ranges(self.input_bits)[1]
        if not least <= low <= 0 < high <= (largest if low < 0 else unsigned):
            raise NetworkError(
                f"A {self.input_bits}-bit input lies in {least}..{largest} or 0..{unsigned}, not in {low}..{high}."
            )

    @property
    def numerics(self) -> str:
        """What a network of such integers is called: "int8"."""
        return numerics_of(self.weight_bits)
