"""The numbers that a network is computed in, and what so many bits hold: the one place that spells either.

A network is one of "float32", or of integers and named after the width of its weights: "int8" for 8 bits. Names, ranges
and what is refused are derived from the widths below, so a new width is an entry of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from cos_export.errors import NetworkError

__all__ = [
    "FLOAT32",
    "INPUT_BITS",
    "INPUT_WIDTHS",
    "INTEGERS",
    "NUMERICS",
    "WEIGHT_BITS",
    "WEIGHT_WIDTHS",
    "check_width",
    "input_ranges",
    "numerics_of",
    "signed_range",
]

FLOAT32 = "float32"

WEIGHT_WIDTHS = (8,)
"""Bits that a weight of a network of integers may have, with its sign."""

INPUT_WIDTHS = (8,)
"""Bits that a number of its input may have, with its sign if there are negative ones."""

WEIGHT_BITS, INPUT_BITS = 8, 8
"""Unless something else is said."""


def numerics_of(weight_bits: int | None) -> str:
    """What a network is called whose weights have so many bits, or None for those that are not integers."""
    return FLOAT32 if weight_bits is None else f"int{weight_bits}"


NUMERICS: Mapping[str, int | None] = {numerics_of(bits): bits for bits in (None, *WEIGHT_WIDTHS)}
"""The bits of a weight by name, None for float32."""

INTEGERS = tuple(name for name, bits in NUMERICS.items() if bits is not None)
"""The names of those that are integers."""


def check_width(field: str, bits: int, known: tuple[int, ...]) -> None:
    """Refuses a number of bits that no part of this package has been proved for.

    Raises:
        NetworkError: It is not one of `known`.
    """
    if bits not in known or isinstance(bits, bool):
        raise NetworkError(f"{field} is {bits!r}; networks of integers have {' or '.join(map(str, known))} bits here.")


def signed_range(bits: int) -> tuple[int, int]:
    """-2^(bits-1)..2^(bits-1)-1: what so many bits hold with their sign."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def input_ranges(bits: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What numbers of the input may be, if there are negative ones, which lie even about 0, and if there are none."""
    _, largest = signed_range(bits)
    return (-largest, largest), (0, 2**bits - 1)
