"""Progress on standard error: bars on a terminal, now and then a line elsewhere, with its rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from cos_export.progress import Progress, silent
from cos_export.terminal.printable import printable, words
from cos_export.terminal.quiet import is_quiet

__all__ = ["Pace", "progress_bars"]

PATIENCE = 1.0
"""Seconds that a stage must take for a console that is not a terminal to be told of its end."""

INTERVAL = 10.0
"""Seconds between two lines about one stage on such a console."""


@dataclass(frozen=True)
class Pace:
    """How fast a stage goes, in the mean since this run has begun it.

    Attributes:
        begun: When it was first told of, in seconds.
        first: The pieces that were done then: those that an earlier run has done took none of this one's time.
    """

    begun: float
    first: int = 0

    def rate(self, done: int, now: float) -> str:
        """The pieces in a second, or the seconds of a piece where that is more; "" before one is done."""
        pieces, seconds = done - self.first, now - self.begun
        if pieces <= 0 or seconds <= 0:
            return ""
        each = seconds / pieces
        return f"{each:.1f} s each" if each > 1 else f"{1 / each:,.1f}/s" if each > 0.1 else f"{1 / each:,.0f}/s"

    def left(self, done: int, total: int, now: float) -> str:
        """The time until all are done at this rate, as 1:02:03 or 2:03; "" before one is done."""
        if done <= self.first or done >= total:
            return ""
        seconds = (now - self.begun) * (total - done) / (done - self.first)
        return str(timedelta(seconds=round(seconds))).removeprefix("0:")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A progress callback that draws on standard error: bars on a terminal, else a line now and then.

    It draws nothing with --quiet.
    """
    if is_quiet():
        yield silent
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _PaceColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total, pace=Pace(time.monotonic(), done))
            bars.update(tasks[stage], completed=done, total=total, told=time.monotonic())
            if done >= total:
                bars.remove_task(tasks.pop(stage))

        yield report


class _PaceColumn(ProgressColumn):
    """The rate of a stage when it was last told of, and what is left from then on."""

    def render(self, task: Task) -> Text:
        done, told = int(task.completed), task.fields.get("told", 0.0)
        pace: Pace = task.fields["pace"]
        rate, left = pace.rate(done, told), pace.left(done, int(task.total or 0), told)
        return Text(f"{rate}, {left} left" if rate and left else rate)


class _Lines:
    """A line now and then for each stage that takes long, and one when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, Pace] = {}
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        pace, told = self._paces.setdefault(stage, Pace(now, done)), self._told.setdefault(stage, now)
        seconds, rate = now - pace.begun, pace.rate(done, now)
        if done >= total:
            del self._paces[stage], self._told[stage]
            if seconds >= PATIENCE:
                done_in = f"{total} in {seconds:.1f} s, {rate}" if total > 1 and rate else f"{seconds:.1f} s"
                self._print(f"{stage}: {done_in}")
        elif now - told >= INTERVAL:
            self._told[stage] = now
            left = pace.left(done, total, now)
            self._print(f"{stage}: {done} of {total} after {seconds:.0f} s", rate, f"{left} left" if left else "")

    def _print(self, *parts: str) -> None:
        self._console.print(words(", ".join(filter(None, parts))), highlight=False, soft_wrap=True)
