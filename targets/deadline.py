"""The time that a target may take for a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cos_export.errors import InputError, TargetError
from cos_export.progress import Progress

__all__ = ["check_deadline", "seconds_left", "within_deadline"]


def check_deadline(deadline: float | None) -> None:
    """Checks the seconds that a user allows.

    Raises:
        InputError: It is not a positive number.
    """
    if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
        raise InputError(f"deadline must be a positive number of seconds, and is {deadline}.")


def seconds_left(deadline: float | None) -> Callable[[], float]:
    """A clock that starts now: how many of `deadline` seconds are left, which may be fewer than none."""
    end = math.inf if deadline is None else time.monotonic() + deadline
    return lambda: end - time.monotonic()


def within_deadline(progress: Progress, name: str, deadline: float | None) -> Progress:
    """`progress`, which ends the run of a target in this process once `deadline` seconds are over.

    Args:
        progress: Told as the run goes on.
        name: Of the target.
        deadline: Seconds from now, or None.
    """
    if deadline is None:
        return progress
    left = seconds_left(deadline)

    def timed(stage: str, done: int, total: int) -> None:
        if left() < 0 and done < total:
            raise TargetError(
                f"{name} was not done within {deadline:g} s: {done} of {total} samples were. Allow it more with "
                "deadline= (--deadline on the command line), or give it fewer samples or steps."
            )
        progress(stage, done, total)

    return timed
