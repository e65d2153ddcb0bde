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
    """The command, with standard output kept for `stream` and `console` from its start on, until `release`."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        global _own, _python
        _own, _python = _duplicate(), sys.stdout
        sys.stdout = sys.stderr
        return command(*arguments, **options)

    return run


def release() -> None:
    """Writes out what a command printed, and gives `sys.stdout` back.

    The descriptor stays exchanged to the end of the process: a module may print as the process ends.
    """
    global _own, _python
    if _own is not None and _python is not None:
        sys.stdout, own = _python, _own
        _own = _python = None
        own.flush()


def _duplicate() -> TextIO:
    """Standard output under a descriptor of its own, while 1 becomes standard error; itself if it is not a file."""
    try:
        old, other = sys.stdout.fileno(), sys.stderr.fileno()
    except (io.UnsupportedOperation, AttributeError, ValueError):
        return sys.stdout
    sys.stdout.flush()
    own = os.fdopen(os.dup(old), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(other, old)
    return own
