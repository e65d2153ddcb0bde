"""Reads what the worker writes as it comes, so that it never waits for a full pipe, and keeps only its last words."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable

from cos_export.progress import Progress

__all__ = ["OutputReader", "printable"]

_KEPT_BYTES = 8192
_CHUNK = 65536
"""What a pipe holds: all that a worker may have written before it ended."""

_SEQUENCE = re.compile(
    r"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[ -/]*.?)"
)
"""A command to a terminal: of an operating system, a string, of a control sequence, or of two characters."""


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor, colour its letters or ring its bell; lines stay lines."""
    lines = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return "".join(letter for letter in lines if letter == "\n" or letter.isprintable())


class OutputReader:
    """Reads both outputs of a worker.

    Args:
        process: The worker.
        stage: What the progress calls the run.
        samples: N.
        progress: Told of the samples done.

    Attributes:
        started: Whether the worker has begun with its job.
        done: Samples that are done.
    """

    def __init__(self, process: subprocess.Popen[bytes], stage: str, samples: int, progress: Progress) -> None:
        self._process, self._stage, self._samples, self._progress = process, stage, samples, progress
        self.started, self.done, self._errors, self._line = False, 0, b"", b""
        self._selector = selectors.DefaultSelector()
        readers: dict[object, Callable[[bytes], None]] = {process.stdout: self._follow, process.stderr: self._keep}
        for stream, reader in readers.items():
            os.set_blocking(stream.fileno(), False)  # type: ignore[attr-defined]
            self._selector.register(stream, selectors.EVENT_READ, reader)  # type: ignore[arg-type]

    @property
    def words(self) -> str:
        """The last that the worker wrote to standard error."""
        return printable(self._errors.decode(errors="replace")).strip()

    def begin(self) -> None:
        """Tells the progress that nothing is done yet."""
        self._progress(self._stage, 0, self._samples)

    def read(self, seconds: float, *, report: bool = True) -> None:
        """Waits up to `seconds` for something, and reads a piece of each output that has it.

        A piece and no more: whoever calls this must come to look at the clock while a worker writes without an end.
        """
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            piece = _piece(key.fd)
            if report or key.data == self._keep:
                key.data(piece)
            if not piece:
                self._selector.unregister(key.fileobj)

    def close(self) -> None:
        """Closes the pipes, after what is left in them has been read."""
        self.read(0.0, report=False)
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _keep(self, piece: bytes) -> None:
        self._errors = (self._errors + piece)[-_KEPT_BYTES:]

    def _follow(self, piece: bytes) -> None:
        *lines, rest = (self._line + piece).split(b"\n")
        self._line = rest[-_KEPT_BYTES:]
        before = self.done
        for line in lines:
            # What is not a line of the worker's own is nothing to go by.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                self.done = min(max(int(json.loads(line)["done"]), 0), self._samples)
                self.started = True
        if self.done != before:
            self._progress(self._stage, self.done, self._samples)


def _piece(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return b""
