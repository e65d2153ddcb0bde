"""When a layer fires: the two schedules by name."""

from __future__ import annotations

from typing import Literal, get_args

from cos_export.errors import InputError

__all__ = ["SCHEDULES", "Schedule", "check_schedule", "summed_steps"]

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


def summed_steps(schedule: Schedule, steps: int) -> int:
    """How many steps what lies on a wire is the sum of.

    Synapses are linear, so under the layer-wise schedule, where a layer adds up all T steps before it fires, one pass
    of each over the number of spikes serves the whole window. Under the synchronous one each step has its own pass.

    Args:
        schedule: When a layer fires.
        steps: T.

    Returns:
        T under the layer-wise schedule, 1 under the synchronous one.
    """
    return steps if schedule == "layerwise" else 1
