"""What fields of the manifest have in common: numbers, names and their ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from cos_export.numerics import NUMERICS
from cos_export.reading.limits import MAX_NAME, MAX_STEPS

__all__ = ["Amount", "Count", "Extra", "Name", "Numerics", "Share", "Steps", "Text"]


def _known_numerics(name: str) -> str:
    if name not in NUMERICS:
        raise ValueError(f"known are {' and '.join(NUMERICS)}")
    return name


Numerics = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_known_numerics)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, Field(max_length=MAX_NAME)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[FiniteFloat, Field(ge=0, lt=2**63)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Extra = Annotated[int, Field(ge=0, le=MAX_STEPS)]
