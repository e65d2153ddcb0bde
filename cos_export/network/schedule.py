"""When a layer fires: the two schedules by name."""

from __future__ import annotations

from typing import Literal, get_args

from cos_export.errors import InputError

__all__ = ["SCHEDULES", "Schedule", "check_schedule"]

Schedule = Literal["synchronous", "layerwise"]

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def check_schedule(schedule: object) -> Schedule:
    """`schedule`, if there is one of that name.

    Raises:
        InputError: There is none.
    """
    for known in SCHEDULES:
        if schedule == known:
            return known
    raise InputError(f"A schedule is one of {', '.join(SCHEDULES)}, and not {schedule!r}.")
