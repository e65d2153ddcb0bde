"""Which deployment is taken of those that were measured, and the front, by brute force."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from narrowing import present

from calibration import METHODS
from calibration.search import MINIMISED, Measured, deployments, outcome
from calibration.search.outcome import cost_of
from cos_export.errors import InputError


def measured(seed: int, count: int = 30) -> list[Measured]:
    """Few different figures, so that there are ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        drop, cost, latency = (int(x) for x in rng.integers(0, 6, 3))
        rows.append(
            Measured(
                method={"name": "half"},
                steps=1 + number,
                schedule="layerwise" if rng.integers(2) else "synchronous",
                accuracy=0.9 - drop / 100,
                drop=float(drop),
                drop_error=0.1,
                total_steps=1 + int(rng.integers(0, 6)),
                latency=float(latency),
                operations=float(cost),
            )
        )
    return rows


@pytest.mark.parametrize("minimise", MINIMISED)
@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_within_the_drop_and_the_front(seed: int, minimise: Any) -> None:
    all_of_them = measured(seed)
    result = outcome(all_of_them, minimise, 2.0, 0.9, 100, {})
    within = [one for one in all_of_them if one.drop is not None and one.drop <= 2.0]
    least = min(cost_of(one, minimise) for one in within)
    assert result.winner in within and result.nearest is None
    assert cost_of(result.winner, minimise) == least
    assert result.winner.drop == min(one.drop for one in within if cost_of(one, minimise) == least)  # type: ignore[type-var]
    points = {(cost_of(one, minimise), one.drop) for one in all_of_them}
    undominated = {
        (c, d)
        for c, d in points
        if not any(a <= c and b <= d and (a, b) != (c, d) for a, b in points)  # type: ignore[operator]
    }
    # Equals are on the front, all of them.
    expected = [one for one in all_of_them if (cost_of(one, minimise), one.drop) in undominated]
    assert sorted(one.steps for one in result.front) == sorted(one.steps for one in expected)
    assert len(result.measured) == len(all_of_them)
    by_cost = [cost_of(one, minimise) for one in result.front]
    assert by_cost == sorted(by_cost)


def test_where_nothing_keeps_the_accuracy_the_nearest_is_named() -> None:
    lossy = [one.model_copy(update={"drop": one.drop + 1}) for one in measured(3) if one.drop is not None]
    failed = Measured(method={"name": "bias"}, steps=2, schedule="synchronous", failure="no synapse")
    result = outcome([*lossy, failed], "latency", 0.5, 0.9, 100, {"cos, layerwise": "why"})
    assert result.winner is None and result.nearest is not None and result.failed == (failed,)
    assert result.nearest.drop == min(present(one.drop) for one in lossy)
    document = result.to_dict()
    assert document["winner"] is None and document["refused"] == {"cos, layerwise": "why"}
    assert document["failed"][0]["failure"] == "no synapse"
    empty = outcome([failed], "latency", 0.5, 0.9, 100, {})
    assert empty.winner is None and empty.nearest is None and empty.front == ()


def test_cheap_ones_come_first_and_each_once() -> None:
    names = list(METHODS)
    chosen, refused = deployments(names, [2, 1, 2], ["synchronous", "layerwise"], [1, 4])
    assert len({one.key for one in chosen}) == len(chosen)
    order = [one.method.needs_data for one in chosen]
    assert order == sorted(order)
    free = [one.total_steps for one in chosen if not one.method.needs_data]
    assert free == sorted(free) and chosen[0].steps == 1
    per_sample = {(one.method.name, one.method.rho) for one in chosen if one.method.rho}
    assert per_sample == set(product(("cos", "srp"), (1, 4)))
    assert {one.schedule for one in chosen if one.method.rho} == {"synchronous"}
    assert {"cos, layerwise", "srp, layerwise"} <= set(refused)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        deployments(["cos"], [1], ["layerwise"], [4])
    with pytest.raises(InputError, match="no calibration method 'nothing'"):
        deployments(["nothing"], [1], ["layerwise"], [4])
