"""Sees to it that a worker leaves nothing behind, however it or its parent dies.

A worker may split a network over processes that wait for each other through shared memory, as Lava does. If one of
them dies, the others wait for ever, and if the first one is killed, they and their memory stay. So

* every segment and semaphore of the job has a name that begins with the job's prefix;
* every child is killed by the kernel when the worker's main process dies;
* a thread of the worker watches for the death of its parent, and clears up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import threading
import time
from multiprocessing import process, shared_memory
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["LAST_ACT", "Guardian", "name_segments", "tie_children"]

LAST_ACT = threading.Lock()
"""Taken, and never given back, by the thread that is to end this process: what it has to do first is not cut short."""

_SEGMENTS: Any = shared_memory
"""How Python names them is private, and no type says it."""
_PR_SET_PDEATHSIG = 1
_SEGMENT_FOLDER = Path("/dev/shm")
_RANDOM_CHARACTERS = 8
_MARGIN = 15.0
"""Seconds past the deadline at which the worker gives up itself. Its parent should long have ended it."""


def name_segments(prefix: str) -> None:
    """Makes the names of all shared memory and semaphores of this process and its children begin with `prefix`.

    Sockets go to the current folder, the job's: a relative path stays below the length that a socket's
    address may have, wherever the folder is.
    """
    _SEGMENTS._SHM_NAME_PREFIX = f"/{prefix}"
    _SEGMENTS._SHM_SAFE_NAME_LENGTH = len(prefix) + 1 + _RANDOM_CHARACTERS
    sockets = Path("sockets")
    sockets.mkdir(exist_ok=True)
    current: Any = process.current_process()
    current._config.update(semprefix=f"/{prefix}", tempdir=str(sockets))


def tie_children() -> None:
    """From now on every forked child is killed when this process dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It died before the call above.
            os._exit(1)

    os.register_at_fork(after_in_child=tie)


class Guardian(threading.Thread):
    """Watches the parent through standard input, which closes when it dies, and by its process number.

    Either alone may fail: a sibling may have inherited the other end of the pipe.

    Args:
        parent: The process that waits for the result.
        deadline: Seconds after which the worker gives up by itself.
        segment_prefix: What the names of the job's shared memory begin with.
    """

    def __init__(self, parent: int, deadline: float, segment_prefix: str) -> None:
        super().__init__(name="guardian", daemon=True)
        self._parent, self._limit, self._prefix = parent, time.monotonic() + deadline + _MARGIN, segment_prefix
        self._folder, self._main = Path.cwd(), os.getpid()

    def run(self) -> None:
        """Waits until nobody waits for the result any more, then clears up."""
        while time.monotonic() < self._limit and os.getppid() == self._parent:
            if select.select([0], [], [], 0.5)[0] and not os.read(0, 1024):
                break
        LAST_ACT.acquire()
        self._clear_up()

    def _clear_up(self) -> NoReturn:
        # The main thread may be about to create another segment: from here on it waits for ever instead.
        _SEGMENTS._make_filename = LAST_ACT.acquire
        for _ in range(50):
            others = self._others()
            for number in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            if not others:
                break
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            # Where all were stopped and this process alone goes on, the tracker must, too, to end.
            os.killpg(self._main, signal.SIGCONT)
        if _SEGMENT_FOLDER.is_dir():
            for segment in _SEGMENT_FOLDER.iterdir():
                if segment.name.startswith((self._prefix, f"sem.{self._prefix}")):
                    segment.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def _others(self) -> list[int]:
        """The living processes of this process's group but itself and Python's own resource tracker.

        The tracker ends by itself, and frees what it knows of, when the last of the others is gone.
        """
        from multiprocessing import resource_tracker

        tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
        members = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:  # It ended meanwhile.
                continue
            number = int(folder.name)
            if int(group) == self._main and state not in "ZX" and number not in (self._main, tracker):
                members.append(number)
        return members
