"""Numbers that JSON has no spelling of."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["spelled"]


def spelled(value: Any) -> Any:
    """The value with "nan", "inf" and "-inf" in place of numbers that are not finite, as deep as it goes."""
    if isinstance(value, dict):
        return {key: spelled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
