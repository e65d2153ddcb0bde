"""Ends a worker's process group, and frees what a dead one has left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

__all__ = ["StoppedProcesses", "end_group", "has_ended", "members", "remove_segments", "uninterrupted"]

_SEGMENT_FOLDER = Path("/dev/shm")
_POLL = 0.02
_LOOK = 1.0
"""Seconds between two looks at the states of processes."""


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended, without taking its place in the process table away.

    While it keeps that place no other process can have its number, so its group can safely be signalled.
    """
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # Another part of the program has collected it.
        return True


def members(group: int) -> list[int]:
    """The living processes of a process group; zombies, which hold nothing, are not counted."""
    if not Path("/proc/self/stat").exists():
        return _unlisted(group)
    return [number for number, state in _states(group).items() if state not in "ZX"]


def _states(group: int) -> dict[int, str]:
    """The processes of a group, each with the letter of its state; none where the system lists none in /proc."""
    states = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # It has ended meanwhile.
            continue
        if int(its_group) == group:
            states[int(folder.name)] = state
    return states


class StoppedProcesses:
    """Looks for processes of a group that a signal has stopped, about once a second (Linux).

    A process that is stopped and goes on between two looks counts as one that never was. Time in which nobody has
    looked, as when this process was stopped itself, does not count.
    """

    def __init__(self, group: int) -> None:
        self._group, self._looked = group, time.monotonic()
        self._seconds: dict[int, float] = {}

    def longest(self) -> tuple[int, float]:
        """The process that has been stopped for longest, and for how many seconds: (0, 0.0) if none has."""
        passed = time.monotonic() - self._looked
        if passed >= _LOOK:
            self._looked += passed
            stopped = [number for number, state in _states(self._group).items() if state == "T"]
            counted = min(passed, 2 * _LOOK)
            self._seconds = {number: self._seconds.get(number, -counted) + counted for number in stopped}
        return max(self._seconds.items(), key=lambda item: item[1], default=(0, 0.0))


def _unlisted(group: int) -> list[int]:
    """The group itself, if it has any member, where the system does not list processes in /proc."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [group]


def end_group(process: subprocess.Popen[bytes], *, at_once: bool) -> None:
    """Ends a process that leads its own group, and all others of it.

    First they may end by themselves, then they are asked to (SIGTERM, on which Python's resource tracker,
    which ignores it, frees the shared memory of the others), and then they are killed.

    Args:
        process: The leader.
        at_once: Whether to leave the first out.
    """
    patience = [(signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)]
    if not at_once:
        _gone(process.pid, 2.0)
    for number, seconds in patience:
        if not members(process.pid):
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        _gone(process.pid, seconds)
    process.wait()


def _gone(group: int, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while members(group) and time.monotonic() < limit:
        time.sleep(_POLL)


def remove_segments(prefix: str) -> None:
    """Removes the shared memory and semaphores whose names begin with a job's prefix (Linux)."""
    if not _SEGMENT_FOLDER.is_dir():
        return
    for segment in _SEGMENT_FOLDER.iterdir():
        if segment.name.startswith((prefix, f"sem.{prefix}")):
            segment.unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts off Ctrl-C, and a SIGTERM that the program handles, until the block is done.

    Only a program's main thread is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_off: list[tuple[int, FrameType | None]] = []

    def remember(number: int, frame: FrameType | None) -> None:
        put_off.append((number, frame))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handled:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    for caught, frame in put_off:
        handled[signal.Signals(caught)](caught, frame)
