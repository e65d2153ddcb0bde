"""Zip archives whose claims about themselves are bounded: their directory, and what their members inflate to."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_INFLATED, MAX_SWOLLEN

__all__ = ["CHUNK", "DAMAGE", "check_inflated", "read_member", "zip_directory"]

CHUNK = 2**20
"""Bytes that are read at once; also the most that the directory of an archive may have, for it is read in one."""

DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    LookupError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile raises for a damaged archive."""


@contextmanager
def zip_directory(file: BinaryIO, path: str, what: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose directory has been read, which takes no more than `CHUNK` bytes of it.

    Args:
        file: The archive.
        path: What to call it in messages.
        what: What it should be, in words.

    Raises:
        InputError: It is not an archive.
    """
    try:
        archive = zipfile.ZipFile(cast(BinaryIO, _Frugal(file)))
    except DAMAGE as error:
        raise InputError(f"{path} is not {what}: {error}.") from error
    with archive:
        yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, path: str) -> bytes:
    """What a member of an archive holds.

    Args:
        archive: Of `zip_directory`.
        member: One of its members.
        most: Bytes that it may hold.
        path: What to call the archive in messages.

    Raises:
        InputError: It holds more, or is damaged.
    """
    name = repr(member.filename[:80])
    if member.file_size > most:
        raise InputError(f"{name} in {path} has {member.file_size:,} bytes, and {most:,} are read at most.")
    try:
        with archive.open(member) as file:
            return b"".join(iter(lambda: file.read(CHUNK), b""))
    except DAMAGE as error:
        raise InputError(f"{name} in {path} cannot be read: {error}.") from error


def check_inflated(path: str, inflated: int, size: int) -> None:
    """Refuses an archive of `size` bytes whose content takes `inflated`.

    Raises:
        InputError: That is more than `MAX_INFLATED`, and more than `MAX_SWOLLEN` times its size.
    """
    if inflated > max(MAX_INFLATED, MAX_SWOLLEN * size):
        raise InputError(
            f"{path} has {size:,} bytes and would inflate to {inflated:,}, which real data do not. Save what it holds "
            "without compression if it is genuine."
        )


class _Frugal:
    """A file that gives no more than `CHUNK` bytes at once, as no honest archive asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > CHUNK:
            raise ValueError(f"its directory or a part of it claims {size:,} bytes")
        return self._file.read(CHUNK if size < 0 else size)

    def close(self) -> None:
        """The file belongs to whoever opened it."""
