"""Opens a file of a user's, and nothing else that a path may name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from cos_export.errors import InputError

__all__ = ["check_plain_file", "open_plain", "read_plain"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_plain(path: str | os.PathLike[str], *, links: bool = True) -> Iterator[BufferedReader]:
    """Opens a regular file to be read. A named pipe or a device is refused, without waiting for it.

    Args:
        path: The file.
        links: Whether `path` itself may be a symbolic link.

    Raises:
        InputError: There is no such file, it may not be read or is not a regular file; also if reading it fails
            within the block.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        if not links and Path(path).is_symlink():
            raise InputError(f"{path} is a symbolic link, and must be a file itself.") from error
        raise InputError(f"{path} cannot be opened: {_reason(error)}.") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for test, name in _KINDS if test(mode)), "something else")
            raise InputError(f"{path} is {kind}, and must be a regular file.")
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise InputError(f"{path} cannot be read: {_reason(error)}.") from error


def check_plain_file(path: str | os.PathLike[str], *, links: bool = True) -> int:
    """The size in bytes of a regular file that can be read, for a library that opens it by its path.

    Raises:
        InputError: As `open_plain`.
    """
    with open_plain(path, links=links) as file:
        return os.fstat(file.fileno()).st_size


def read_plain(path: str | os.PathLike[str], limit: int, *, links: bool = True) -> bytes:
    """The bytes of a regular file.

    Args:
        path: The file.
        limit: The most bytes that it may have.
        links: Whether `path` itself may be a symbolic link.

    Raises:
        InputError: As `open_plain`, or it is larger.
    """
    with open_plain(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InputError(f"{path} has {size:,} bytes, and may have {limit:,}.")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path} has more than the {limit:,} bytes that it may have.")
    return content


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
