"""What a layer does at a step, whichever schedule the network has."""

from __future__ import annotations

from typing import NamedTuple

from job import Job, Node

__all__ = ["ScheduledStep", "WindowSchedule"]


class ScheduledStep(NamedTuple):
    """What a layer does at a step.

    Attributes:
        number: Of the sample, or group of samples, whose currents it adds up.
        constant: The step t = 0 .. T - 1 whose constant current and bias count now, or None.
        fires: The step of its window, 0 .. T - 1, or None while it may not fire.
    """

    number: int
    constant: int | None
    fires: int | None


class WindowSchedule:
    """When a layer whose window opens after `on` steps of a sample's clock adds up and fires.

    A sample's clock starts `delay` steps late at this layer, and that of the next one `interval` steps later. The layer
    fires in the steps on + 1 .. on + T of it. Under the layer-wise schedule it adds up before, and constant currents
    count in the T steps up to on + 1. What arrives after its window belongs to the next sample.

    Args:
        job: What to run.
        node: The layer, or the Output.
        delay: Steps that the clock is late here.
        count: How many samples, or groups of them, there are.
    """

    def __init__(self, job: Job, node: Node, delay: int, count: int) -> None:
        self._steps, self._interval, self._count = job.steps, job.interval, count
        self._delay, self._opens = delay, node.opens
        self._lead = job.steps - 1 if job.layerwise else 0

    def at(self, time_step: int) -> ScheduledStep | None:
        """What the layer does at one of Lava's steps k = 1, 2, ..., or None if the layer rests."""
        clock = time_step - self._delay
        number = (clock - self._opens - self._steps - 1) // self._interval + 1
        if not 0 <= number < self._count:
            return None
        fires = clock - number * self._interval - self._opens - 1
        return ScheduledStep(number, self._within(fires + self._lead), self._within(fires))

    def _within(self, step: int) -> int | None:
        return step if 0 <= step < self._steps else None
