"""What a search comes to: the deployment of the least cost that keeps the accuracy, and the front of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from calibration.search.state import Measured

__all__ = ["MINIMISED", "Minimised", "SearchOutcome", "cost_of", "outcome"]

Minimised = Literal["latency", "operations", "steps"]

MINIMISED: tuple[Minimised, ...] = get_args(Minimised)


@dataclass(frozen=True)
class SearchOutcome:
    """What was found.

    Attributes:
        minimise: The cost.
        max_drop: Points of accuracy that may be lost, on the images held out.
        ann_accuracy: Of the artificial network on these.
        samples: How many they are.
        measured: All, by rising cost.
        front: Those of which no other is as cheap and more accurate, or as accurate and cheaper; by rising cost. Equals
            in both are all on it.
        winner: The cheapest that loses no more than `max_drop`, or None.
        nearest: Where there is no winner, the one that loses least.
        failed: Those that could not be measured, with their reasons.
        refused: Combinations of method and schedule that there are not, with their reasons.
    """

    minimise: Minimised
    max_drop: float
    ann_accuracy: float
    samples: int
    measured: tuple[Measured, ...]
    front: tuple[Measured, ...]
    winner: Measured | None
    nearest: Measured | None
    failed: tuple[Measured, ...]
    refused: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {
            "minimise": self.minimise,
            "max_drop": self.max_drop,
            "ann_accuracy": self.ann_accuracy,
            "held_out_samples": self.samples,
        }
        lists = {key: [one.model_dump() for one in getattr(self, key)] for key in ("measured", "front", "failed")}
        chosen = {
            key: None if (one := getattr(self, key)) is None else one.model_dump() for key in ("winner", "nearest")
        }
        return {**plain, **chosen, **lists, "refused": dict(self.refused)}


def cost_of(one: Measured, minimise: Minimised) -> float:
    """The cost that is minimised."""
    cost = {"latency": one.latency, "operations": one.operations, "steps": one.total_steps}[minimise]
    return float("inf") if cost is None else float(cost)


def outcome(
    measured: Sequence[Measured],
    minimise: Minimised,
    max_drop: float,
    ann_accuracy: float,
    samples: int,
    refused: Mapping[str, str],
) -> SearchOutcome:
    """What comes of everything that was measured; of equally cheap ones the more accurate is taken."""
    failed = tuple(one for one in measured if one.failure)
    ranked = sorted((one for one in measured if not one.failure), key=lambda one: _rank(one, minimise))
    front: list[Measured] = []
    for one in ranked:
        if not front or _drop(one) < _drop(front[-1]) or _point(one, minimise) == _point(front[-1], minimise):
            front.append(one)
    # Points are differences of shares of few hundred images: 0.5 of them may be 0.50000001.
    kept = [one for one in ranked if _drop(one) <= max_drop + 1e-9]
    nearest = None if kept or not ranked else min(ranked, key=lambda one: (_drop(one), cost_of(one, minimise)))
    return SearchOutcome(
        minimise,
        max_drop,
        ann_accuracy,
        samples,
        tuple(ranked),
        tuple(front),
        kept[0] if kept else None,
        nearest,
        failed,
        refused,
    )


def _rank(one: Measured, minimise: Minimised) -> tuple[float, ...]:
    """By cost, then accuracy, then the other costs; of equals those that need no window come first."""
    others = (cost_of(one, name) for name in MINIMISED)
    return cost_of(one, minimise), _drop(one), *others, float(one.schedule == "layerwise")


def _point(one: Measured, minimise: Minimised) -> tuple[float, float]:
    return cost_of(one, minimise), _drop(one)


def _drop(one: Measured) -> float:
    return float("inf") if one.drop is None else one.drop
