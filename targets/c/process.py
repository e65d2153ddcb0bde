"""A program of this machine, run to its end or stopped at a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cos_export.errors import TargetError

__all__ = ["Finished", "finished"]

_POLL = 0.02


@dataclass(frozen=True)
class Finished:
    """What became of a program.

    Attributes:
        returncode: What it exited with; below 0 the signal that ended it.
        said: What it wrote to its standard streams.
    """

    returncode: int
    said: str


def finished(
    command: Sequence[str],
    what: str,
    seconds: float,
    *,
    allowed: float | None = None,
    observe: Callable[[], None] = lambda: None,
) -> Finished:
    """Runs a program in a process group of its own, of which nothing is left afterwards, whatever happens.

    Args:
        command: The program and its arguments.
        what: What it is called in messages.
        seconds: That it may take.
        allowed: What the user has allowed for more than this program; by default `seconds`.
        observe: Called now and then while it runs.

    Raises:
        TargetError: It does not start, or was not done in time.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise TargetError(f"{what} does not start: {error}.") from error
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    raise TargetError(
                        f"{what} was not done within {allowed or seconds:g} s. Allow it more with deadline= "
                        "(--deadline on the command line), or give it fewer samples or steps."
                    )
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(_POLL, max(0.0, end - time.monotonic())))
                observe()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return Finished(process.returncode, output.read().decode("utf-8", "replace"))
