"""The command line, run in this process as a user's shell would run it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

import cli

__all__ = ["Done", "run"]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """The command line ends with its process, and would leave every signal ignored."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with mock.patch.object(sys, "unraisablehook"):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(*arguments: str | Path | int | float, cwd: Path | None = None) -> Done:
    """The command in this process, which has torch imported already."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _signals_as_before(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or "."),
        mock.patch.object(sys, "argv", ["cos-export", *map(str, arguments)]),
        mock.patch.object(sys, "path", list(sys.path)),
        mock.patch.dict(os.environ, {"COLUMNS": "400"}),
        pytest.raises(SystemExit) as stopped,
    ):
        sys.modules.pop("mine", None)  # another test's module of that name
        cli.main()
    assert isinstance(stopped.value.code, int)
    return Done(stopped.value.code, out.getvalue(), err.getvalue())
