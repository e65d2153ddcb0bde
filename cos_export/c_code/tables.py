"""Constant arrays in C, each in the smallest type that holds it and written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cos_export.c_code.names import Identifiers
from cos_export.errors import NetworkError

__all__ = ["Table", "Tables", "rows_of", "smallest_type"]

_SIGNED = ("int8_t", "int16_t", "int32_t")
_TYPES: Mapping[str, type[np.integer]] = {
    **dict(zip(_SIGNED, (np.int8, np.int16, np.int32), strict=True)),
    "uint8_t": np.uint8,
    "uint32_t": np.uint32,
}
_LINE = 24
"""Numbers on a line."""


@dataclass(frozen=True)
class Table:
    """An array in the file.

    Attributes:
        name: Its identifier.
        kind: Its type in C.
        shape: Of the array; weights have two axes, so that a compiler needs little memory for many.
        text: Its numbers.
        nbytes: Its size.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    text: str
    nbytes: int

    @property
    def sides(self) -> str:
        """Its sizes in brackets."""
        return "".join(f"[{side}]" for side in self.shape)


@dataclass
class Tables:
    """The arrays of a file, in the order in which they were asked for."""

    identifiers: Identifiers
    tables: list[Table] = field(default_factory=list)
    _known: dict[tuple[str, tuple[int, ...], bytes], Table] = field(default_factory=dict)

    def add(self, name: str, suffix: str, values: NDArray[np.integer], kind: str | None = None) -> Table:
        """The table that holds `values`; one that is there already serves again.

        Args:
            name: What the numbers belong to.
            suffix: What they are.
            values: Integers.
            kind: Their type; by default the smallest that holds them all.
        """
        kind = kind or smallest_type(values)
        key = (kind, values.shape, values.astype(np.int64).tobytes())
        if key not in self._known:
            text = _text(values)
            nbytes = values.size * np.dtype(_TYPES[kind]).itemsize
            table = Table(self.identifiers.of(name, suffix), kind, values.shape, text, nbytes)
            self.tables.append(table)
            self._known[key] = table
        return self._known[key]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(table.nbytes for table in self.tables)


def smallest_type(values: NDArray[np.integer]) -> str:
    """The smallest signed type of C that holds all of `values`.

    Raises:
        NetworkError: 32 bits do not.
    """
    low, high = int(values.min()), int(values.max())
    for kind in _SIGNED:
        limits = np.iinfo(_TYPES[kind])
        if limits.min <= low and high <= limits.max:
            return kind
    raise NetworkError(f"A number of {max(-low, high):,} takes more than 32 bits.")


def _text(values: NDArray[np.integer]) -> str:
    if values.ndim == 1:
        return "{\n" + _lines(values) + "\n}"
    return "{\n" + ",\n".join("{\n" + _lines(row) + "}" for row in values) + "\n}"


def _lines(values: NDArray[np.integer]) -> str:
    numbers = [str(value) for value in values.tolist()]
    return ",\n".join("    " + ", ".join(numbers[i : i + _LINE]) for i in range(0, len(numbers), _LINE))


def rows_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(pixels, channels) as the smallest array that says the same: (1, 1), (1, channels) or as it is."""
    if np.all(values == values[:1]):
        values = values[:1]
    return values[:, :1] if len(values) == 1 and np.all(values == values[:, :1]) else values
