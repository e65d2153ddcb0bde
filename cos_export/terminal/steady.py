"""Standard streams that never stop a command: what cannot be written is dropped, and the work goes on.

A pipe whose reader has gone, a device that is full, a stream that was closed, an encoding that lacks a letter: none of
them may cost a calibration of hours. The first failure is kept, for the exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

__all__ = ["SteadyStream", "nowhere", "steady", "steady_streams"]


class SteadyStream:
    """A text stream whose `write` and `flush` do not raise.

    Attributes:
        failure: The first error, or None; nothing is written after it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if hasattr(stream, "reconfigure"):
            # Letters that the encoding lacks are shown as escapes.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes what can be written."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:  # a ValueError: it was closed
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes what can be written."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Passes on what can be passed on."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.failure = error if isinstance(error, OSError) else OSError(str(error))
        with contextlib.suppress(OSError, ValueError):
            # Python writes out its buffer once more at the end, and would fail then.
            descriptor = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def steady(stream: TextIO) -> TextIO:
    """The stream as a `SteadyStream`, once."""
    return stream if isinstance(stream, SteadyStream) else cast(TextIO, SteadyStream(stream))


@contextlib.contextmanager
def steady_streams() -> Iterator[None]:
    """`sys.stdout` and `sys.stderr` as steady streams; one that was closed leads nowhere.

    The descriptors 0, 1 and 2 are taken in any case, for the next file to be opened would be standard output otherwise.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (steady(stream or nowhere()) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def nowhere() -> TextIO:
    """A stream of which nothing is seen."""
    return Path(os.devnull).open("w", encoding="utf-8")
