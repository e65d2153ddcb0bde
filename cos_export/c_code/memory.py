"""Where the state of the C code lies: what is never needed at the same time shares its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Claim", "placed"]


@dataclass(frozen=True)
class Claim:
    """A number of places that are needed for a time.

    Attributes:
        name: Of what lies there.
        size: Places.
        first: When it is written first.
        last: When it is read last.
    """

    name: tuple[str, ...]
    size: int
    first: int
    last: int


def placed(claims: Iterable[Claim]) -> tuple[dict[tuple[str, ...], int], int]:
    """Where each claim begins, and how many places that takes in all.

    The largest come first, each at the lowest place where it meets none that is needed at the same time.
    """
    begins: dict[tuple[str, ...], int] = {}
    placed_claims: list[tuple[int, Claim]] = []
    for claim in sorted(claims, key=lambda claim: (-claim.size, claim.first, claim.name)):
        begin = 0
        for other_begin, other in sorted(placed_claims, key=lambda entry: entry[0]):
            together = other.first <= claim.last and claim.first <= other.last
            if together and begin < other_begin + other.size and other_begin < begin + claim.size:
                begin = other_begin + other.size
        begins[claim.name] = begin
        placed_claims.append((begin, claim))
    return begins, max((begin + claim.size for begin, claim in placed_claims), default=0)
