"""What is shown of a list that may be longer than anyone reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["excerpt"]

Item = TypeVar("Item")


def excerpt(items: Sequence[Item], most: int) -> list[Item]:
    """All items if there are at most `most`; else so many of them, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]
