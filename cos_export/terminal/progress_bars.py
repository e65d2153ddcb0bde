"""Progress on standard error: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cos_export.progress import Progress
from cos_export.terminal.printable import printable, words

__all__ = ["progress_bars"]

PATIENCE = 1.0
"""Seconds that a stage must take for a console that is not a terminal to be told of its end."""

INTERVAL = 10.0
"""Seconds between two lines about one stage on such a console."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A progress callback that draws on standard error: bars on a terminal, else a line per long stage."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(stage))

        yield report


class _Lines:
    """A line now and then for each stage that takes long, and one when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        begun, told = self._begun.setdefault(stage, now), self._told.setdefault(stage, now)
        if done >= total:
            del self._begun[stage], self._told[stage]
            if now - begun >= PATIENCE:
                self._console.print(words(f"{stage}: {total} in {now - begun:.1f} s"), highlight=False)
        elif now - told >= INTERVAL:
            self._told[stage] = now
            self._console.print(words(f"{stage}: {done} of {total} after {now - begun:.0f} s"), highlight=False)
