"""Runs what a user wrote, and says where in it an exception came from."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch

from cos_export.errors import CosExportError, InputError

__all__ = ["Place", "calling_place", "exits_raise", "is_users", "line_at", "line_of", "summary", "user_code"]

Place = tuple[str, int]
"""A file, and the number of a line."""

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


@contextmanager
def exits_raise() -> Iterator[None]:
    """`os._exit` raises SystemExit, as `sys.exit` does, for as long as the code inside runs.

    It would end the process with nothing said, and with an exit code that means something else. Children that the code
    forks still end by it. Compiled code that ends the process, or a signal that does, is beyond reach.
    """
    leave, here = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def user_code(failure: str) -> Iterator[None]:
    """Turns whatever the code inside raises into one error that names the user's line; an interrupt passes.

    Args:
        failure: What has failed, to be followed by a colon and the reason.

    Raises:
        InputError: The code raised something, or tried to end Python.
    """
    with exits_raise():
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit, CosExportError):
            raise
        except BaseException as error:
            line = line_of(error)
            raise InputError(f"{failure}: {summary(error)}" + (f"\n  in {line}" if line else "")) from error


def is_users(file: str) -> bool:
    """Whether a file of a traceback is neither PyTorch's nor ours."""
    return not file.startswith((_TORCH, _HERE, "<"))


def line_of(error: BaseException) -> str | None:
    """The user's line that an exception came through last, "file:number: code"; of a library if there is no other."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    frames = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else None


def calling_place() -> Place | None:
    """The user's line that is running, seen from what PyTorch calls back; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    library = None
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            if not file.startswith(_INSTALLED):
                return file, frame.f_lineno
            library = library or (file, frame.f_lineno)
        frame = frame.f_back
    return library


def line_at(place: Place | None) -> str | None:
    """The line at a place, "file:number: code"."""
    return None if place is None else f"{place[0]}:{place[1]}: {linecache.getline(*place).strip()}"


def summary(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, SystemExit):
        return f"it ends Python (exit code {0 if error.code is None else error.code})"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
