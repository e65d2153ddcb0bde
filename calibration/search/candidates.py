"""What a search measures: methods, thresholds of ReLUs, numbers of steps and schedules, the cheap ones first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibration.methods import METHODS
from calibration.methods.method import Method, PerSampleMethod
from calibration.records import method_named
from calibration.thresholds import METHODS as THRESHOLDS
from cos_export.errors import InputError
from cos_export.network.schedule import Schedule
from cos_export.numerics import FLOAT32

__all__ = ["DEFAULT_METHODS", "DEFAULT_THRESHOLDS", "Deployment", "deployments", "without_thresholds"]

DEFAULT_METHODS = ("half", "mean-matching", "bias", "cos")
"""What is tried unless the user names others: a calibration takes a few runs over the images, or none."""

DEFAULT_THRESHOLDS = ("mmse", "percentile")
"""Which rules for the thresholds of ReLUs are tried with each of them."""


@dataclass(frozen=True)
class Deployment:
    """One way to deploy a network.

    Attributes:
        method: The calibration method with its options.
        steps: T.
        schedule: When layers fire.
        thresholds: The rule that thresholds of ReLUs come from, of `calibration.thresholds.METHODS`; None where the
            network has none to find, or the user's choice holds.
    """

    method: Method
    steps: int
    schedule: Schedule
    thresholds: str | None = None

    @property
    def total_steps(self) -> int:
        """T_total = rho + T."""
        return self.method.rho + self.steps

    @property
    def key(self) -> str:
        """What tells it from every other, as JSON."""
        return json.dumps(self.record(), sort_keys=True)

    def record(self) -> dict[str, Any]:
        """Plain JSON values."""
        rule = {} if self.thresholds is None else {"thresholds": self.thresholds}
        return {"method": self.method.record(), "steps": self.steps, "schedule": self.schedule, **rule}

    def __str__(self) -> str:
        extra = f", rho = {self.method.rho}" if self.method.rho else ""
        rule = "" if self.thresholds is None else f", {self.thresholds}"
        return f"{self.method.name}, T = {self.steps}{extra}, {self.schedule}{rule}"


def deployments(
    methods: Sequence[str],
    steps: Sequence[int],
    schedules: Sequence[Schedule],
    rhos: Sequence[int],
    numerics: str = FLOAT32,
    thresholds: Sequence[str | None] = (None,),
) -> tuple[tuple[Deployment, ...], Mapping[str, str]]:
    """All that there is to measure, and why the other combinations are not.

    Those come first whose calibration takes least, and among them those of the fewest steps.

    Args:
        methods: By name; their options have their defaults.
        steps: T.
        schedules: When layers fire.
        rhos: Extra steps of the per-sample methods.
        numerics: Of the network that is deployed.
        thresholds: Rules for the thresholds of ReLUs; each method is tried with each.

    Returns:
        Deployments, and reasons by method and schedule.

    Raises:
        InputError: There is no such method or rule, or nothing is left to measure.
    """
    unknown = [name for name in thresholds if name is not None and name not in THRESHOLDS]
    if unknown:
        raise InputError(f"There is no threshold method {', '.join(unknown)}. There are {', '.join(THRESHOLDS)}.")
    refused: dict[str, str] = {}
    deployments_by_key: dict[str, Deployment] = {}
    for name, schedule in itertools.product(methods, schedules):
        for method in _variants(name, rhos):
            reason = method.refusal(numerics) or method.schedule_refusal(schedule)
            if reason:
                refused[f"{name}, {schedule}"] = reason
                continue
            for count, rule in itertools.product(steps, thresholds):
                one = Deployment(method, count, schedule, rule)
                deployments_by_key.setdefault(one.key, one)
    if not deployments_by_key:
        raise InputError("There is nothing to measure. " + " ".join(refused.values()))
    return tuple(sorted(deployments_by_key.values(), key=_effort)), refused


def without_thresholds(deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """The deployments of a network that has no thresholds to find: each once, whatever the rule."""
    plain = (replace(one, thresholds=None) for one in deployments)
    return tuple({one.key: one for one in plain}.values())


def _variants(name: str, rhos: Sequence[int]) -> list[Method]:
    method = method_named(name)
    if not isinstance(method, PerSampleMethod):
        return [method]
    option = "tau" if name == "srp" else "rho"
    return [method_named(name, {option: rho}) for rho in rhos]


def _effort(one: Deployment) -> tuple[bool, int, int, str]:
    order = list(METHODS)
    # A per-sample method calibrates nothing beforehand; what looks at images is in the order of its effort.
    return one.method.needs_data, order.index(one.method.name) if one.method.needs_data else 0, one.total_steps, one.key
