"""Several processes on one command speak with one voice: the main one says what went wrong in any of them.

Each tells the others of its failure where all of them see it. Whoever is left without the others, or is ended from
outside, was not the one that failed: the main process waits a moment for the cause, and says that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from functools import wraps
from typing import Any

from cos_export.errors import InputError
from cos_export.launcher import launched_processes, number_of_process

__all__ = ["Failure", "agreed", "alone", "is_heard"]

_PATIENCE = 10.0
"""Seconds that a process waits for the main one to speak before it speaks itself."""

_GRACE = {0: 3.0, 1: 0.5}
"""Seconds that the main process waits for what weighs more than its own failure, by the weight of that."""


class Failure(IntEnum):
    """What ended a process, by how much it explains."""

    lost = 0
    interrupted = 1
    own = 2


def is_heard() -> bool:
    """Whether this process's results are printed: the main one's are."""
    return number_of_process() == 0


def alone(command: Callable[..., int], name: str) -> Callable[..., int]:
    """A command that knows nothing of other processes, and would do its work as often as there are any."""

    @wraps(command)
    def run(**options: Any) -> int:
        if launched_processes() > 1:
            raise InputError(f"{name} does not share its work among processes: start it once, without torchrun.")
        return command(**options)

    return run


def agreed(message: str, code: int, kind: Failure) -> tuple[str, int] | None:
    """What this process is to say of a failure, and its exit code; None if the main process says it.

    Args:
        message: What went wrong here.
        code: The exit code of that.
        kind: What ended this process.
    """
    count, number = launched_processes(), number_of_process()
    if count <= 1:
        return message, code
    told = [int(kind), code, message]
    here = (message, code) if number == 0 else (f"Process {number + 1} of {count}: {message}", code)
    try:
        from cos_export.processes import meeting_place

        store = meeting_place(timedelta(seconds=_PATIENCE))
        store.set(_key(number), json.dumps(told))
        if number:
            main = _waited(lambda: _read(store, 0), _PATIENCE)
            return here if main is None else None
        worse = _waited(lambda: _cause(store, count, kind), _GRACE.get(kind, 0.0))
    except (RuntimeError, ValueError, OSError):  # Whoever keeps the store has ended.
        return here
    return here if worse is None else worse


def _cause(store: Any, count: int, kind: Failure) -> tuple[str, int] | None:
    """The failure of another process that weighs most, if it weighs more than this one's."""
    others = [(told, number) for number in range(1, count) if (told := _read(store, number)) is not None]
    if not others:
        return None
    (weight, code, message), number = max(others, key=lambda one: one[0][0])
    return (f"Process {number + 1} of {count}: {message}", code) if weight > kind else None


def _waited(look: Callable[[], Any], seconds: float) -> Any:
    """What `look` finds within so many seconds; it looks once at least. Signals are heard meanwhile."""
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _read(store: Any, number: int) -> list[Any] | None:
    key = _key(number)
    return json.loads(store.get(key)) if store.check([key]) else None


def _key(number: int) -> str:
    return f"cos-export/failure/{number}"
