"""What can be wrong with a place on a disk, in the words and with the exit code that it deserves."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cos_export.errors import CosExportError, InputError, StorageError

__all__ = ["existing_ancestor", "exit_code", "flush", "is_utf8", "resolved", "storage_error", "temporary_room"]

_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_USERS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EBUSY,
    errno.ENXIO,
}
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM}


def storage_error(path: str | os.PathLike[str], error: OSError) -> CosExportError:
    """The error of this package that `error`, which came of writing `path`, stands for.

    A full disk or a failed device is a `StorageError`, with what is free; a place that may not be written, or cannot
    be, is an `InputError`.
    """
    if error.errno in _USERS:
        return InputError(f"{path} cannot be written: {error.strerror}. Name another place.")
    return StorageError(f"{path} cannot be written: {error.strerror or error}.{_room(Path(path), error)}")


@contextmanager
def temporary_room(called: str) -> Iterator[None]:
    """Says of an OSError in the block that the temporary folder cannot hold what is called so, and what to do.

    Raises:
        StorageError: In its place.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{tempfile.tempdir or 'The temporary folder'} cannot hold {called}: {error}. Name a folder on a larger "
            "disk in the environment variable TMPDIR."
        ) from error


def exit_code(error: OSError) -> int:
    """What the command line ends with: 2 where the user named a place that cannot be read or written, else 1."""
    return InputError.exit_code if error.errno in _USERS else StorageError.exit_code


def _room(path: Path, error: OSError) -> str:
    if error.errno == errno.EFBIG:
        return " The process may not write files of that size (ulimit -f)."
    folder = existing_ancestor(path.absolute())
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    advice = " Free some, or name a place on another disk." if error.errno in _ROOM else ""
    return f" {free / 2**20:,.1f} MiB are free in {folder}.{advice}"


def existing_ancestor(path: Path) -> Path:
    """The nearest folder, or what is in the place of one, above `path` that is there."""
    return next((above for above in path.parents if os.path.lexists(above)), Path(path.anchor or "."))


def resolved(path: str | os.PathLike[str]) -> Path:
    """The absolute path with all symbolic links followed, of something that need not be there.

    Raises:
        InputError: The links go round in a loop, a file stands where a folder is needed, or a name is longer than the
            file system allows.
    """
    try:
        absolute = Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r} is not a path here: {error}.") from error
    try:
        absolute.lstat()
        absolute.stat()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        file = next(above for above in absolute.parents if above.exists())
        raise InputError(f"{path} cannot be written: {file} is a file, and not a folder.") from None
    except OSError as error:
        raise storage_error(path, error) from error
    return absolute


def is_utf8(name: str) -> bool:
    """Whether a name is text; those of files may be any bytes, which Python has as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk, where the file system can tell."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
