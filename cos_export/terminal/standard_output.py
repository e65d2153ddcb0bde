"""Standard output, kept for what a command prints itself.

What a user's own code prints there goes to standard error: Python's prints, those of compiled code and of child
processes, for the descriptor is exchanged, not `sys.stdout` alone.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TextIO, TypeVar

from rich.console import Console

from cos_export.terminal.one_voice import is_heard
from cos_export.terminal.steady import SteadyStream, nowhere, steady

__all__ = ["console", "release", "reserved", "stream"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_own: TextIO | None = None
"""Where a command prints to, while one runs."""

_python: TextIO | None = None
"""What `sys.stdout` was before."""


def stream() -> TextIO:
    """Where a command prints to."""
    return sys.stdout if _own is None else _own


def console() -> Console:
    """A console on standard output, for a command to print to."""
    return Console(file=stream())


def reserved(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The command, with standard output kept for `stream` and `console` from its start on, until `release`.

    Of several processes the main one alone prints there.
    """

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        global _own, _python
        _own, _python = _duplicate(), sys.stdout
        if not is_heard():
            _own = nowhere()
        sys.stdout = sys.stderr
        return command(*arguments, **options)

    return run


def release() -> OSError | None:
    """Writes out what a command printed, and gives `sys.stdout` back.

    Returns what kept any of it from being written, or None.

    The descriptor stays exchanged to the end of the process: a module may print as the process ends.
    """
    global _own, _python
    own = sys.stdout if _own is None else _own
    own.flush()
    if _python is not None:
        sys.stdout = _python
    _own = _python = None
    return own.failure if isinstance(own, SteadyStream) else None


def _duplicate() -> TextIO:
    """Standard output under a descriptor of its own, while 1 becomes standard error; itself if it is not a file."""
    try:
        old, other = sys.stdout.fileno(), sys.stderr.fileno()
    except (io.UnsupportedOperation, AttributeError, ValueError):
        return steady(sys.stdout)
    sys.stdout.flush()
    own = os.fdopen(os.dup(old), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(other, old)
    return steady(own)
